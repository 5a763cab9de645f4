"""Questions about graphs: what is constant, what is used, where a node comes from, and a free path."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.fx import symbolic_trace

from ana_fx import graph
from tests import graphs


class Scaled(nn.Module):
    """A row of a parameter times the input, and a layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(4))
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again = self.used

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        row = self.gain.exp()
        return x * row, {"layer": self.used(x)}


def node_named(gm, name):
    return next(node for node in gm.graph.nodes if node.name == name)


def test_what_is_computed_from_parameters_alone_is_constant():
    gm = symbolic_trace(Scaled())
    assert {node.name for node in graph.constant_nodes(gm)} == {"gain", "exp"}
    assert graph.constant_parameters(node_named(gm, "exp")) == {gm.gain}
    assert graph.parameters_of(node_named(gm, "used")) == {gm.used.weight, gm.used.bias}


def test_outputs_are_named_by_what_leads_to_them():
    gm = symbolic_trace(Scaled())
    assert [(name, node.name) for name, node in graph.outputs(gm)] == [("output_0", "mul"), ("output_1_layer", "used")]


def test_a_module_that_the_graph_does_not_call_is_deleted_under_each_of_its_names():
    gm = symbolic_trace(Scaled())
    gm.unused, gm.again = nn.Linear(1, 1), gm.used
    graph.delete_unused_modules(gm)
    assert [name for name, _ in gm.named_modules(remove_duplicate=False)] == ["", "used"]


def test_a_path_that_is_taken_gets_the_first_number_that_is_free():
    gm = symbolic_trace(Scaled())
    assert graph.unique_path(gm, "new") == "new"
    for index in range(1, 12):
        assert graph.unique_path(gm, "used") == f"used_{index}"
        gm.add_submodule(f"used_{index}", nn.ReLU())


def test_a_node_is_located_by_its_module_and_the_line_of_the_user():
    gm = graphs.fused(Scaled())
    product = next(node for node in gm.graph.nodes if "mul" in node.name)
    assert re.search(r"test_graph\.py:\d+: return x \* row, ", graph.location(product))
    layer = next(node for node in gm.graph.nodes if node.target == "used")
    assert graph.location(layer).startswith("module 'used', ")
