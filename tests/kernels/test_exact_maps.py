"""Tables, softmax, normalisation and inputs on GPUs: the numbers of the plain code, bit for bit.

This covers `kernels/integer_form.py` and `kernels/triton_maps.py` too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ana_fx.kernels.exact_maps import exact_normalization, look_up_levels, round_input, softmax_of_levels
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.softmax_map import integer_softmax
from ana_fx.layers.table_map import look_up
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.coefficients import Epsilon
from ana_fx.operators.normalization import Normalization
from ana_fx.requantizers.staircase import ShiftStaircase, along
from ana_fx.schedule.schedule import Schedule
from tests.kernel_helpers import DEVICE, needs_kernels

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
    ("operator", "shape"),
    [
        (Normalization(1e-5), (3, 4, 20)),
        (Normalization(1e-5, num_axes=2), (3, 4, 6)),
        (Normalization(1e-5, is_centered=False), (3, 20)),
        (Normalization(1e-5, num_axes=0, num_groups=2), (2, 4, 3, 5)),
    ],
)
def test_a_normalization_is_the_formula_and_its_staircase(operator, shape, monkeypatch):
    n = torch.randint(-128, 128, shape)
    n[0] = 0
    axis, epsilon = operator.channel_axis(len(shape)), torch.tensor(9)
    channels = shape[axis]
    multiplier, offset = torch.randint(1, 2**15, (channels,)), torch.randint(-(2**20), 2**20, (channels,))
    steps = ShiftStaircase(-128, 127, multiplier, offset, torch.randint(10, 24, (channels,)))
    sign = torch.tensor([1.0, -1.0, 0.0]).repeat(channels)[:channels]
    accumulator = operator.accumulate((n,), epsilon) * along(sign.long(), axis, n.ndim)
    expected = steps.level(accumulator, axis) * OUTPUT_SCALE.cpu()
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True), raising=False)
    one = torch.ones(1)
    run = exact_normalization(operator, IntegerForm(Epsilon(one, one, epsilon), sign, 1, OUTPUT_SCALE.cpu(), steps))
    monkeypatch.undo()
    there = {name: getattr(run, name).to(DEVICE) for name in ("epsilon", "root", "ends")}
    run = replace(run, finish=tuple(each.to(DEVICE) for each in run.finish), **there)
    assert torch.equal(run((n.to(DEVICE) * SCALE,), (SCALE,)).cpu(), expected)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("kind", [IntegerType(8, True), IntegerType(8, False)], ids=str)
def test_an_input_is_rounded_as_its_quantizer_does_without_kernels(kind, is_training):
    quantizer = InputQuantizer(kind, Schedule()).train(is_training)
    quantizer.set_scale(SCALE.cpu())
    others = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e38, 1e-40])
    x = torch.cat([torch.randn(3000) * 4, (torch.arange(-300, 300) + 0.5) * 0.037, others])
    expected = quantizer(x).detach()
    found = round_input(x.to(DEVICE), SCALE, kind.qmin, kind.qmax, keeps_nan=is_training).cpu()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
