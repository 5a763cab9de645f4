"""Proofs hold at every accumulator; encodings and thresholds that are off are found."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import calls_to, module_of
from ana_fx.passes.lowering.prove import Prove, claim_thresholds
from ana_fx.program.integer_layers import IntegerMap
from tests.models import INPUT_SHAPES, Chain, Depthwise
from tests.programs import converted

NETWORKS = list(INPUT_SHAPES)


def integer_maps(program: GraphModule) -> Iterator[IntegerMap]:
    return (module for module in program.modules() if isinstance(module, IntegerMap))


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_requantizer_is_proven(kind):
    for integer_map in integer_maps(converted(kind, awkward=True)):
        assert integer_map.proof is not None
        assert integer_map.proof.num_channels == len(integer_map.signed_range()[0])
        assert integer_map.proof.num_thresholds <= integer_map.proof.num_channels * (integer_map.hi - integer_map.lo)


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", [Chain, Depthwise])
def test_a_proof_holds_at_every_accumulator_and_not_only_at_thresholds(kind, precision, target):
    for integer_map in integer_maps(converted(kind, precision, awkward=True, target=target)):
        low, high = (ends[:, None] for ends in integer_map.signed_range())
        step = max(1, int((high - low).max()) // 100_000)  # all of them, where there are not too many
        every = torch.minimum(low + torch.arange(0, int((high - low).max()) + step, step), high)
        wanted = integer_map.staircase.level(every, 0)
        assert torch.equal(integer_map.multiply_shift.level(every, 0), wanted)
        assert bool((wanted.diff(dim=1) >= 0).all())


@pytest.mark.parametrize("field", ["multiplier", "offset", "shift"])
def test_an_encoding_that_is_off_is_not_proven(field):
    program = copy.deepcopy(converted(Chain))
    first = module_of(calls_to(program, IntegerMap)[0])
    getattr(first, field)[2] += 2 ** first.shift[2] if field == "offset" else 1
    with pytest.raises(
        ana_fx.ProofError,
        match=r"'features.0'.*multiplier and shift of channel 2 does not reach level \d+ first at .*: it gives level",
    ):
        Prove()(program)


def test_thresholds_that_are_off_are_not_trusted():
    program = copy.deepcopy(converted(Chain))
    node = calls_to(program, IntegerMap)[0]
    integer_map = module_of(node)
    thresholds = integer_map.staircase.thresholds(*integer_map.signed_range())
    thresholds[2, 0] += 1
    claim_thresholds(node, thresholds)
    with pytest.raises(ana_fx.ProofError, match=r"'features.0'.*channel 2 does not reach level -?\d+ first at"):
        Prove()(program)


def test_thresholds_do_not_stay_in_the_program():
    assert not any("thresholds" in node.meta for node in converted(Chain).graph.nodes)
