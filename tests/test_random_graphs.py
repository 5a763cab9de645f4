"""Random networks, drawn by hypothesis: lossless on every target, or refused in one clear error."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

import ana_fx
from tests.programs import settled
from tests.random_graphs import networks

WEIGHTS = ["bipolar", "ternary", "int2", "int3", "int4", "int6", "int8"]
ACTIVATIONS = ["bipolar", "uint1", "ternary", "uint2", "uint3", "uint4", "uint6", "uint8"]
REFUSALS = (ana_fx.UnsupportedError, ana_fx.AccumulatorError, ana_fx.ProofError)

precisions = st.builds(
    ana_fx.Precision,
    st.sampled_from(WEIGHTS),
    st.sampled_from(ACTIVATIONS),
    rounding=st.sampled_from(["nearest", "floor"]),
)


def leaves(outputs: Any) -> list[Tensor]:
    return pytree.tree_leaves(outputs)


@torch.no_grad()
def lossless_program(
    model: nn.Module, x: Tensor, precision: ana_fx.Precision, target: str
) -> tuple[GraphModule, Tensor]:
    """The program of a network that was prepared and trained for a batch, and inputs on which it has the same bits."""
    torch.set_num_threads(1)
    qat = ana_fx.prepare(model, x, precision=precision, target=target)
    qat.train()(x)
    program = ana_fx.convert(settled(qat).eval())
    inputs = torch.cat([x, torch.randn_like(x) * 2])
    for wanted, found in zip(leaves(qat(inputs)), leaves(program(inputs)), strict=True):
        assert torch.equal(wanted, found)
    return program, inputs


@torch.no_grad()
def check_lossless(model: nn.Module, x: Tensor, precision: ana_fx.Precision, target: str) -> None:
    """Written too, the network gives the same bits everywhere."""
    program, inputs = lossless_program(model, x, precision, target)
    with TemporaryDirectory() as folder:
        for written in {"integer", target}:
            path = Path(folder) / f"{written}.onnx"
            ana_fx.export(program, path, target=written)
            assert ana_fx.verify(program, path, inputs).num_different == 0


def explore(drawn: tuple[nn.Module, Tensor], precision: ana_fx.Precision, target: str) -> None:
    try:
        check_lossless(*drawn, precision, target)
    except REFUSALS as error:
        refusal = str(error)
    else:
        return
    assert "needed" in refusal


SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
targets = st.sampled_from(["onnxruntime", "integer"])


@settings(max_examples=40, **SETTINGS)
@given(networks(), precisions, targets)
def test_a_random_network_is_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)


@pytest.mark.slow
@settings(max_examples=2000, **SETTINGS)
@given(networks(), precisions, targets)
def test_two_thousand_random_networks_are_lossless_or_refused(drawn, precision, target):
    explore(drawn, precision, target)
