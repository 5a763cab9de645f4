"""Pairs of products are bounded at convert, for the kernels of the target."""

from __future__ import annotations

import pytest
import torch

import ana_fx
from ana_fx.graph import calls_to, module_of
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.passes.lowering.bound_pairs import BoundPairs
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.target_registry import target_called
from tests.models import Chain, Depthwise
from tests.programs import converted


def pair_sums(program: torch.fx.GraphModule) -> dict[str, int | None]:
    return {str(node.target): module_of(node).pair_sum for node in calls_to(program, IntegerHead, IntegerMap)}


def test_every_layer_that_adds_pairs_is_bounded():
    found = pair_sums(converted(Depthwise, "int8"))
    assert all(0 < found[path] <= PAIR_LIMIT for path in ("stem.0", "project.0", "grouped.0", "head"))
    assert found["depthwise.0"] is None


def test_a_description_shows_the_bounds():
    rows = {row.name: row.pair_sum for row in ana_fx.describe(converted(Chain, "int8")).rows}
    assert rows == pair_sums(converted(Chain, "int8"))


def test_nothing_is_bounded_for_a_target_without_such_kernels():
    assert set(pair_sums(converted(Chain, "int8", target="deeploy")).values()) == {None}


def test_a_program_that_could_saturate_is_refused():
    program = converted(Chain, "int8", target="onnxruntime-vnni")
    with pytest.raises(ana_fx.ProofError, match=r"'hidden'.*two products can add up to \d\d,\d\d\d"):
        BoundPairs(target_called("onnxruntime"))(program)
