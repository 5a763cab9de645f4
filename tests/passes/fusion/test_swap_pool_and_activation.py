"""Activations before the max pools that they stood behind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.graphs import Written, assert_graph, assert_same_numbers, fused

IMAGE = (4, 3, 8, 8)


def test_an_activation_behind_a_max_pool_comes_before_it():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU())
    gm = fused(model)
    assert_graph(gm, "input -> Convolution+norm+relu -> MaxPool2d -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_an_activation_behind_two_max_pools_keeps_the_bits():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.MaxPool2d(2, 1), nn.ReLU6())
    assert_same_numbers(fused(model), model, torch.randn(IMAGE))


def test_an_activation_behind_a_max_pool_with_two_readers_stays():
    model = Written(lambda m, x: (lambda y: F.relu(y) + y)(F.max_pool2d(m.conv(x), 2)), conv=nn.Conv2d(3, 4, 3))
    gm = fused(model)
    assert_graph(gm, "x -> Convolution -> MaxPool2d -> Identity+relu -> Sum(Identity+relu, MaxPool2d) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))
