"""What was seen of a tensor is noted in parts, and nothing is lost by the next."""

from __future__ import annotations

import torch
from torch.fx import Graph

from ana_fx.passes.fusion.observation import Observation, note_samples, note_shape, observation_of


def test_a_node_that_never_ran_was_not_seen():
    assert observation_of(Graph().placeholder("x")) == Observation(None, None)


def test_shape_and_samples_are_noted_beside_each_other():
    node, samples = Graph().placeholder("x"), torch.rand(3)
    note_shape(node, (2, 3))
    note_samples(node, samples)
    note_shape(node, (4,))
    assert observation_of(node).sample_shape == (4,)
    assert observation_of(node).samples is samples
