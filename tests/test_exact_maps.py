from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ana_fx.exact_maps import ExactNormalization, look_up_levels, softmax_of_levels
from ana_fx.exact_products import Finish
from ana_fx.normalization import Normalization, root_table
from ana_fx.softmax_map import integer_softmax
from ana_fx.staircase import QLinearStaircase, along
from ana_fx.table_map import look_up
from tests.kernels import DEVICE, needs_kernels

pytestmark = needs_kernels

SCALE, OUTPUT_SCALE = torch.tensor(0.037, device=DEVICE), torch.tensor(0.11, device=DEVICE)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_gives_the_entry_of_each_level(rows):
    n, table = torch.randint(-128, 128, (2, 3, 5, 7), device=DEVICE), torch.randint(0, 99, (rows, 256), device=DEVICE)
    expected = look_up(table.float(), n + 128) * OUTPUT_SCALE
    assert torch.equal(look_up_levels(n * SCALE, SCALE, table.float(), -128, OUTPUT_SCALE), expected)


@pytest.mark.parametrize("is_nearest", [True, False])
@pytest.mark.parametrize("length", [1, 5, 40])
def test_softmax_is_the_integer_softmax(length, is_nearest):
    n = torch.randint(-128, 128, (2, 3, length), device=DEVICE)
    n[0] = 7  # all alike
    table = torch.round(torch.exp(-0.05 * torch.arange(256.0)) * 2**15).to(torch.int64).to(DEVICE)
    expected = integer_softmax(n, -1, table, 255, is_nearest).float() * OUTPUT_SCALE
    found = softmax_of_levels(n * SCALE, SCALE, table, 255, OUTPUT_SCALE, is_nearest=is_nearest)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        (Normalization(1e-5), (3, 4, 20)),
        (Normalization(1e-5, num_axes=2), (3, 4, 6)),
        (Normalization(1e-5, is_centered=False), (3, 20)),
        (Normalization(1e-5, num_axes=0, num_groups=2), (2, 4, 3, 5)),
    ],
)
def test_a_normalization_is_the_formula_and_its_staircase(affine, shape):
    n = torch.randint(-128, 128, shape)
    n[0] = 0
    axis, epsilon = affine.channel_axis(len(shape)), torch.tensor(9)
    channels = shape[axis]
    bias = torch.randint(-4000, 4000, (channels,), dtype=torch.int32)
    steps = QLinearStaircase(-128, 127, 1, bias, torch.tensor(0.037), torch.rand(channels) + 0.01, torch.tensor(0.9))
    sign = torch.tensor([1.0, -1.0, 0.0]).repeat(channels)[:channels]
    expected = (
        steps.level(affine.accumulate((n,), epsilon) * along(sign.long(), axis, n.ndim), axis) * OUTPUT_SCALE.cpu()
    )
    finish = Finish.of(steps, OUTPUT_SCALE.cpu(), channels)
    there = replace(finish, slope=finish.slope.to(DEVICE), bias=finish.bias.to(DEVICE), ends=finish.ends.to(DEVICE))
    run = ExactNormalization(affine, epsilon.to(DEVICE), root_table().to(DEVICE), sign.to(DEVICE), there)
    assert torch.equal(run((n.to(DEVICE) * SCALE,), (SCALE,)).cpu(), expected)
