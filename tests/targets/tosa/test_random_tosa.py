"""Random networks, drawn by hypothesis: no output differs in Arm's reference model, or a sentence refuses them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.random_graphs import networks
from tests.targets.channels_last.random_chains import chains, explore
from tests.test_random_graphs import SETTINGS, precisions

pytestmark = pytest.mark.extra("tosa", "tosa_reference_model")


@settings(max_examples=10, **SETTINGS)
@given(chains(), precisions)
def test_a_random_chain_is_lossless_or_refused(drawn, precision):
    explore(drawn, precision, "tosa")


@pytest.mark.slow
@settings(max_examples=100, **SETTINGS)
@given(chains(), precisions)
def test_a_hundred_random_chains_are_lossless_or_refused(drawn, precision):
    explore(drawn, precision, "tosa")


@settings(max_examples=40, **SETTINGS)
@given(networks(), precisions)
def test_a_random_network_is_lossless_or_refused(drawn, precision):
    explore(drawn, precision, "tosa")


@pytest.mark.slow
@settings(max_examples=300, **SETTINGS)
@given(networks(), precisions)
def test_three_hundred_random_networks_are_lossless_or_refused(drawn, precision):
    explore(drawn, precision, "tosa")
