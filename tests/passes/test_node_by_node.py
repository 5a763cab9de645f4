"""Graphs that run node by node."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ana_fx.passes.frontend.trace_model import trace
from ana_fx.passes.node_by_node import Evaluator, NodeByNode
from tests.graphs import Written


def test_each_node_is_shown_with_what_it_gave():
    gm, seen = trace(Written(lambda m, x: x.relu() + 1)), {}
    result = NodeByNode(gm, lambda node, result: seen.setdefault(node.name, result)).run(torch.tensor([-1.0, 2.0]))
    assert result.tolist() == [1.0, 3.0]
    assert list(seen) == ["x", "relu", "add", "output"]
    assert seen["relu"].tolist() == [0.0, 2.0]


def test_the_node_that_failed_is_known():
    runner = NodeByNode(trace(Written(lambda m, x: x.relu().view(7))), lambda node, result: None)
    with pytest.raises(RuntimeError):
        runner.run(torch.rand(3))
    assert runner.current.name == "view"


def test_a_node_is_evaluated_with_what_it_reads_and_nothing_else():
    gm = trace(Written(lambda m, x: (m.weight.square().sum() + x).view(99), weight=nn.Parameter(torch.ones(2, 3))))
    (total,) = gm.graph.find_nodes(op="call_method", target="sum")
    evaluator = Evaluator(gm)
    assert float(evaluator.of(total)) == 6.0
    assert {node.name for node in evaluator.env} == {"weight", "square", "sum_1"}


def test_given_inputs_win_over_known_values_and_known_values_are_not_computed():
    gm = trace(Written(lambda m, x: x.relu() + x.abs()))
    x, relu, absolute, add, _ = gm.graph.nodes
    evaluator = Evaluator(gm, {relu: torch.tensor(10.0), absolute: torch.tensor(20.0)})
    assert float(evaluator.of_inputs(add, {relu: torch.tensor(1.0)})) == 21.0
    assert x not in evaluator.env
