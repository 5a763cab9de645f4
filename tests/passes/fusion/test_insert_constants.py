"""Constant maps: where the model's own tensors meet its activations, and nowhere else."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.graph import module_of
from ana_fx.passes.base_pass import run_pipeline
from ana_fx.passes.fusion.insert_constants import InsertConstants
from ana_fx.passes.fusion.observation import observation_of
from tests.graphs import Written, assert_graph, assert_same_numbers, canonical

X = torch.randn(3, 4)
PLACES = {
    "an addition": (lambda m, x: x + m.row, "x -> ConstantMap -> add(x, ConstantMap) -> output"),
    "an addition from the left": (lambda m, x: m.row - x, "x -> ConstantMap -> sub(ConstantMap, x) -> output"),
    "a product": (lambda m, x: m.row * x, "x -> ConstantMap -> mul(ConstantMap, x) -> output"),
    "a matrix product": (lambda m, x: x @ m.matrix, "x -> ConstantMap -> matmul(x, ConstantMap) -> output"),
    "a concatenation": (
        lambda m, x: torch.cat([x, m.matrix], 0),
        "x -> ConstantMap -> cat(x, ConstantMap) -> output",
    ),
    "a buffer": (lambda m, x: x + m.buffer, "x -> ConstantMap -> add(x, ConstantMap) -> output"),
    "what is computed": (
        lambda m, x: x + torch.tanh(m.row),
        "x -> tanh -> ConstantMap -> add(x, ConstantMap) -> output",
    ),
    "two readers": (
        lambda m, x: (x + m.row) * m.row,
        "x -> ConstantMap -> add(x, ConstantMap) -> mul(add, ConstantMap) -> output",
    ),
    "two readers of what is computed": (
        lambda m, x: (lambda y: (x + y) * y)(m.row.exp()),
        "x -> exp -> ConstantMap -> add(x, ConstantMap) -> mul(add, ConstantMap) -> output",
    ),
    "constants among themselves": (
        lambda m, x: x + (m.row + m.buffer * 2),
        "x -> add -> ConstantMap -> add_2(x, ConstantMap) -> output",
    ),
    "a weight": (lambda m, x: F.linear(x, m.matrix), "x -> Linear -> output"),
    "an index": (lambda m, x: x[:, m.index], "x -> getitem -> output"),
    "a number": (lambda m, x: x + 1.0, "x -> add -> output"),
}


def model(forward) -> nn.Module:
    torch.manual_seed(0)
    members = {
        "row": nn.Parameter(torch.randn(4)),
        "matrix": nn.Parameter(torch.randn(4, 4)),
        "buffer": nn.Buffer(torch.randn(4)),
        "index": nn.Buffer(torch.tensor([2, 0])),
    }
    return Written(forward, **members)


@pytest.mark.parametrize(("forward", "wanted"), PLACES.values(), ids=PLACES)
def test_a_constant_map_stands_where_a_constant_meets_an_activation(forward, wanted):
    gm = run_pipeline(canonical(model(forward)), (InsertConstants(),))
    assert_graph(gm, wanted)
    assert_same_numbers(gm, model(forward), X)


def test_a_second_run_changes_nothing():
    gm = run_pipeline(canonical(model(PLACES["two readers"][0])), (InsertConstants(),))
    assert not InsertConstants()(gm).modified


def test_a_constant_map_is_named_after_its_tensor_and_knows_its_numbers():
    made = model(lambda m, x: x + m.row)
    gm = run_pipeline(canonical(made), (InsertConstants(),))
    (node,) = (each for each in gm.graph.nodes if module_of(each) is not None)
    assert node.target == "row_map"
    assert torch.equal(observation_of(node).samples, made.row.detach())
