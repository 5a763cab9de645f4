"""Random networks, drawn by hypothesis: no output differs in any kernel set, or they are refused in one clear error."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ana_fx
from tests.programs import settled
from tests.random_graphs import networks
from tests.test_random_graphs import REFUSALS, SETTINGS, leaves, precisions

pytestmark = [pytest.mark.extra("tflite", "ai_edge_litert"), pytest.mark.extra("tflite", "tflite_micro")]
targets = st.sampled_from(["litert", "tflite-micro", "tflite"])


@torch.no_grad()
def check_lossless(model, x, precision, target):
    """Prepared, trained for a batch, converted and written, the network gives the same bits in all named kernels."""
    qat = ana_fx.prepare(model, x, precision=precision, target=target)
    qat.train()(x)
    program = ana_fx.convert(settled(qat).eval())
    inputs = torch.cat([x, torch.randn_like(x) * 2])
    for wanted, found in zip(leaves(qat(inputs)), leaves(program(inputs)), strict=True):
        assert torch.equal(wanted, found)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.tflite"
        ana_fx.export(program, path)
        assert ana_fx.verify(program, path, inputs).num_different == 0


def explore(drawn, precision, target):
    torch.set_num_threads(1)
    try:
        check_lossless(*drawn, precision, target)
    except (*REFUSALS, ana_fx.PrecisionError, ana_fx.ExportError) as error:
        refusal = str(error)
    else:
        return
    assert "needed" in refusal


@settings(max_examples=40, **SETTINGS)
@given(networks(), precisions, targets)
def test_a_random_network_is_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)


@pytest.mark.slow
@settings(max_examples=1000, **SETTINGS)
@given(networks(), precisions, targets)
def test_a_thousand_random_networks_are_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)
