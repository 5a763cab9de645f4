"""Copies, pads, reshapes and other data movement in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.graphs import Written, assert_same_numbers, canonical, fused, graph_text
from tests.spelling import (
    IMAGE,
    SEQUENCE,
    VOLUME,
    Expression,
    Spelt,
    assert_spelt_alike,
    each_spelling,
    written,
)

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "flatten": nn.Flatten,
    "pad1": lambda: nn.ConstantPad1d((1, 2), 0.0),
    "pad2": lambda: nn.ConstantPad2d((1, 2, 0, 3), 0.0),
    "pad3": lambda: nn.ConstantPad3d(1, 0.0),
}
# shape of the input, spelling with modules, other spellings
SPELT: dict[str, Spelt] = {
    "pad1": (SEQUENCE, lambda m, x: m.pad1(x), {"F.pad": lambda m, x: F.pad(x, (1, 2))}),
    "pad2": (
        IMAGE,
        lambda m, x: m.pad2(x),
        {
            "F.pad": lambda m, x: F.pad(x, [1, 2, 0, 3]),
            "F.pad(mode=)": lambda m, x: F.pad(x, (1, 2, 0, 3), mode="constant", value=0),
        },
    ),
    "pad3": (VOLUME, lambda m, x: m.pad3(x), {"F.pad": lambda m, x: F.pad(x, (1, 1, 1, 1, 1, 1))}),
    "copies": (
        IMAGE,
        lambda m, x: m.relu(x),
        {
            "x.contiguous": lambda m, x: m.relu(x.contiguous()),
            "x.clone": lambda m, x: m.relu(x.clone()),
            "torch.clone": lambda m, x: torch.clone(m.relu(x)),
            "x.float": lambda m, x: m.relu(x.float()),
            "x.to(dtype)": lambda m, x: m.relu(x).to(torch.float32),
            "x.to(dtype=)": lambda m, x: m.relu(x.to(dtype=torch.float32)),
            "x.type": lambda m, x: m.relu(x.type(torch.float32)),
            "x.type_as": lambda m, x: m.relu(x.type_as(x)),
        },
    ),
}


@pytest.mark.parametrize(("shape", "modules", "expression"), each_spelling(SPELT))
def test_every_spelling_of_a_movement_gives_the_graph_and_the_bits_of_its_module(shape, modules, expression):
    assert_spelt_alike(written(modules, MODULES), written(expression, MODULES), torch.randn(shape) * 3)


RESHAPES: dict[str, Expression] = {
    "module": lambda m, x: m.flatten(x),
    "torch.flatten": lambda m, x: torch.flatten(x, 1),
    "torch.flatten(start_dim=)": lambda m, x: torch.flatten(x, start_dim=1),
    "torch.reshape": lambda m, x: torch.reshape(x, (x.size(0), -1)),
    "x.flatten": lambda m, x: x.flatten(1),
    "x.view(size)": lambda m, x: x.view(x.size(0), -1),
    "x.view(shape)": lambda m, x: x.view(x.shape[0], -1),
    "x.view(-1, n)": lambda m, x: x.view(-1, 192),
    "x.reshape": lambda m, x: x.reshape(x.size()[0], x.size(1) * x.size(2) * x.size(3)),
}
MOVED: dict[str, Expression] = {
    "pad of channels": lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "pad that reflects": lambda m, x: F.pad(x, (1, 2, 0, 1), "reflect"),
    "pad that repeats": lambda m, x: F.pad(x, (1, 1, 0, 2), mode="replicate"),
    "negative pad": lambda m, x: F.pad(x, (-1, -1, -1, -1)),
    "pad and crop": lambda m, x: F.pad(x, (-1, 2)),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2),
    "nearest exact": lambda m, x: F.interpolate(x, (5, 3), mode="nearest-exact"),
    "x.view_as": lambda m, x: x.view_as(x.flatten(1)),
    "transposed": lambda m, x: x.mT,
    "permuted": lambda m, x: x.permute(0, 2, 3, 1),
    "sliced": lambda m, x: x[:, 1:, ::2],
    "joined": lambda m, x: torch.cat([x, x], 1),
    "repeated": lambda m, x: x.repeat(1, 2, 1, 1),
}


@pytest.mark.parametrize("expression", RESHAPES.values(), ids=RESHAPES)
def test_reshapes_stay_as_they_are_and_give_the_same_bits(expression):
    gm, model = canonical(written(expression, MODULES)), written(lambda m, x: x.flatten(1), MODULES)
    assert len(graph_text(gm).split(" -> ")) == 3
    assert_same_numbers(gm, model, torch.randn(IMAGE))


@pytest.mark.parametrize("expression", MOVED.values(), ids=MOVED)
def test_movements_give_the_same_bits(expression):
    gm, model = canonical(written(expression, MODULES)), written(expression, MODULES)
    assert_same_numbers(gm, model, torch.randn(IMAGE))


@pytest.mark.parametrize("pad", [(0, 0, 0, 0, 1, 1), (-1, -1, -1, -1), (-1, 2)])
def test_a_pad_of_other_axes_and_a_crop_keep_the_bits(pad):
    channels = 5 if len(pad) == 6 else 3
    model = Written(lambda m, x: m.conv(F.pad(x, pad)), conv=nn.Conv2d(channels, 3, 3))
    assert_same_numbers(canonical(model), model, torch.rand(IMAGE))
    assert_same_numbers(fused(model), model, torch.rand(IMAGE))
