"""What is known of a tensor of a program, from convert and from load alike: ana_fx/program/level_flow.py too.

This covers `program/layout.py` too.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import Graph

import ana_fx
from ana_fx.graph import calls_to
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.lowering.recording import run
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.layout import BATCH, Layout
from ana_fx.program.level_flow import levels_given
from ana_fx.program.tensor_spec import LevelRange, has_spec, integer_type_of, sample_shape_of, spec_of
from tests.models import INPUT_SHAPES, Chain, example
from tests.programs import converted


def levels(lo: int, hi: int, scale: float = 1.0) -> LevelRange:
    return LevelRange(IntegerType.parse("int8"), lo, hi, torch.tensor(scale))


def test_a_range_without_zero_is_no_range():
    with pytest.raises(ValueError, match=r"holds 0, got \[3, 7\]"):
        levels(3, 7)


def test_the_union_of_ranges_holds_both():
    both = LevelRange.union([levels(-3, 1), levels(0, 7)])
    assert (both.lo, both.hi, both.integer_type) == (-3, 7, IntegerType.parse("int8"))


def test_ranges_with_other_scales_have_no_union():
    with pytest.raises(ValueError, match=r"what is joined has one scale, got 1, 0\.5"):
        LevelRange.union([levels(-3, 1), levels(0, 7, 0.5)])


def test_a_node_of_which_nothing_is_known_is_named():
    node = Graph().placeholder("x")
    assert not has_spec(node)
    with pytest.raises(KeyError, match="node 'x' has no TensorSpec"):
        spec_of(node)


@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_every_tensor_is_as_its_spec_says(kind):
    program = converted(kind)
    for node, found in run(program, (example(kind, BATCH) * 3,)).items():
        layout, known = spec_of(node).layout, spec_of(node).levels
        if node.op == "call_module":
            assert found.shape == (BATCH * layout.rows, *layout.row)
            assert found.is_floating_point() == (known is None)
        if known is not None:
            assert known.lo <= int(found.min())
            assert int(found.max()) <= known.hi


def test_a_program_that_was_loaded_knows_the_same(tmp_path):
    for kind in INPUT_SHAPES:
        program = converted(kind)
        ana_fx.save(program, tmp_path / "a.anafx")
        loaded = ana_fx.load(tmp_path / "a.anafx")
        for node, other in zip(program.graph.nodes, loaded.graph.nodes, strict=True):
            if node.op == "call_module":
                assert sample_shape_of(other) == sample_shape_of(node)
                assert integer_type_of(other) == integer_type_of(node)
                assert str(spec_of(other).levels) == str(spec_of(node).levels)


def test_logits_have_no_integer_type_and_the_scale_of_their_dequantize():
    program = converted(next(iter(INPUT_SHAPES)))
    (head,) = calls_to(program, IntegerHead)
    (dequantize,) = head.users
    assert integer_type_of(head) is None
    assert torch.equal(spec_of(head).levels.scale, program.get_submodule(dequantize.target).scale)


def test_what_gives_reals_has_no_levels():
    assert levels_given(nn.Linear(2, 2), []) is None


def test_a_layout_puts_the_batch_in_front():
    layout = Layout((3, BATCH * 4, 5), 1)
    assert (layout.rows, layout.row) == (4, (3, 5))
    assert layout.user(torch.zeros(BATCH * 4, 3, 5)).shape == (3, BATCH * 4, 5)


def test_a_program_prints_what_its_layers_are():
    printed = str(converted(Chain, "int4"))
    assert "IntegerHead(linear, weights -7…7, sums within ±" in printed or "IntegerHead(linear, weights -8…7" in printed
    assert "IntegerMap(convolution, weights " in printed
    assert ", gives uint4)" in printed
    assert "Quantize(uint8, scale=" in printed
    assert "Dequantize(scale=" in printed
