"""Random networks, drawn by hypothesis: no output differs in any kernel set, or they are refused in one clear error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_graphs import networks
from tests.targets.channels_last.random_chains import chains, explore
from tests.test_random_graphs import SETTINGS, precisions

pytestmark = [pytest.mark.extra("tflite", "ai_edge_litert"), pytest.mark.extra("tflite", "tflite_micro")]
targets = st.sampled_from(["litert", "tflite-micro", "tflite"])


@settings(max_examples=10, **SETTINGS)
@given(chains(), precisions, targets)
def test_a_random_chain_is_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)


@pytest.mark.slow
@settings(max_examples=300, **SETTINGS)
@given(chains(), precisions, targets)
def test_three_hundred_random_chains_are_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)


@settings(max_examples=40, **SETTINGS)
@given(networks(), precisions, targets)
def test_a_random_network_is_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)


@pytest.mark.slow
@settings(max_examples=1000, **SETTINGS)
@given(networks(), precisions, targets)
def test_a_thousand_random_networks_are_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)
