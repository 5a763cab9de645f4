"""What Canonicalize leaves and drops; `test_spelling_of_*.py` beside this file has the spellings of each theme.

This covers passes/canonical/drop_identities.py and, by asking whether each entry is spelt in some test,
passes/canonical/spellings.py.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.spellings import spellings
from ana_fx.passes.frontend.trace_model import trace
from tests.graphs import Written, assert_graph, assert_same_numbers, canonical, graph_text
from tests.passes.canonical import (
    test_spelling_of_activations,
    test_spelling_of_arithmetic,
    test_spelling_of_layers,
    test_spelling_of_movement,
)
from tests.spelling import (
    IMAGE,
    written,
)

THEMES = (test_spelling_of_activations, test_spelling_of_arithmetic, test_spelling_of_layers, test_spelling_of_movement)


def test_every_operation_that_the_pass_rewrites_is_tested():
    expressions = [
        (each, theme.MODULES) for theme in THEMES for _, _, others in theme.SPELT.values() for each in others.values()
    ]
    movement = test_spelling_of_movement
    expressions += [(each, movement.MODULES) for each in (*movement.RESHAPES.values(), *movement.MOVED.values())]
    graphs = [trace(written(*each)).graph for each in expressions]
    tested = {node.target for graph in graphs for node in graph.nodes}
    unseen = {operator.iadd, operator.isub, operator.imul, operator.itruediv}  # torch.fx records `x += y` as x + y
    unseen |= {F.sigmoid, F.tanh, abs}  # and what these call
    assert set(spellings()) - unseen <= tested


def test_identities_are_dropped():
    assert_graph(canonical(nn.Sequential(nn.Identity(), nn.ReLU(), nn.Identity())), "input -> ReLU -> output")


def test_what_nobody_reads_is_dropped():
    def forward(m, x):
        m.conv(x)
        return m.relu(x)

    gm = canonical(Written(forward, conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU()))
    assert_graph(gm, "x -> ReLU -> output")


def test_a_second_run_changes_nothing():
    gm = canonical(Written(lambda m, x: F.relu(m.conv(x)).mean((2, 3)), conv=nn.Conv2d(3, 6, 3)))
    before = graph_text(gm)
    assert not Canonicalize().run(gm)
    assert graph_text(gm) == before


def test_what_depends_on_parameters_alone_is_left_as_it_is():
    model = Written(lambda m, x: m.conv(x) + torch.cumsum(m.conv.weight, 0).mean(), conv=nn.Conv2d(3, 3, 1))
    gm = canonical(model)
    assert_graph(gm, "x -> Conv2d -> cumsum -> mean -> add(Conv2d, mean) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))
