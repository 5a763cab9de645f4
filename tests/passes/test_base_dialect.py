"""Dialects name every node that does not belong: those of passes/base_dialect.py, canonical_graph.py and its kin.

The forms are passes/canonical/canonical_graph.py, passes/fusion/fused_graph.py,
passes/quantization/quantized_graph.py and passes/lowering/lowered_graph.py.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import calls_to, layer_map_calls
from ana_fx.passes.base_dialect import Dialect, DialectError
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.program.integer_layers import IntegerMap
from tests.graphs import canonical, fused
from tests.models import Chain
from tests.programs import converted, trained


def forms() -> dict[Dialect, GraphModule]:
    return {
        CANONICAL: canonical(Chain()),
        FUSED: fused(Chain()),
        QUANTIZED: copy.deepcopy(trained(Chain)),
        PROGRAM: copy.deepcopy(converted(Chain)),
    }


def strangers(dialect: Dialect, gm: GraphModule) -> list[tuple[str, str]]:
    return [(node.name, reason) for node, reason in dialect.strangers(gm)]


@pytest.mark.parametrize("dialect", forms(), ids=str)
def test_a_graph_belongs_to_its_own_dialect_and_no_other(dialect):
    for other, gm in forms().items():
        if other is dialect:
            dialect.verify(gm)
            dialect.check_form(gm)
        else:
            with pytest.raises(DialectError, match="needed a"):
                dialect.check_form(gm)
            with pytest.raises(DialectError, match="do not belong into a"):
                dialect.verify(gm)


@pytest.mark.parametrize("dialect", forms(), ids=str)
def test_a_module_that_no_dialect_knows_is_named_in_each(dialect):
    gm = forms()[dialect]
    output = gm.graph.output_node()
    gm.add_submodule("strange", nn.GLU())
    with gm.graph.inserting_before(output):
        output.args = (gm.graph.call_module("strange", output.args),)
    ((name, reason),) = strangers(dialect, gm)
    assert name == "strange"
    assert "GLU" in reason


def test_a_module_in_place_is_not_canonical():
    gm = canonical(nn.Sequential(nn.ReLU()))
    gm.get_submodule("0").inplace = True
    assert strangers(CANONICAL, gm) == [("_0", "it works in place")]


def test_what_is_computed_from_parameters_may_be_spelt_in_any_way():
    model = nn.Linear(3, 3)
    model.forward = lambda x: x + torch.cumsum(model.bias, 0)
    assert strangers(CANONICAL, canonical(model)) == []


def test_a_layer_map_without_the_scales_of_its_inputs_is_named():
    gm = forms()[QUANTIZED]
    node, layer_map = next((n, m) for n, m in layer_map_calls(gm) if m.input_types)
    node.args = node.args[: layer_map.num_inputs]
    assert strangers(QUANTIZED, gm) == [(node.name, "it reads 1 tensors, needed 2")]


def test_a_node_of_a_program_of_which_nothing_is_known_is_named():
    gm = forms()[PROGRAM]
    node = calls_to(gm, IntegerMap)[0]
    node.meta.clear()
    assert strangers(PROGRAM, gm) == [(node.name, "nothing is known of the tensor that it gives")]
