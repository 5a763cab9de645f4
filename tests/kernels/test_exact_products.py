"""Products of integers on GPUs: those of plain int64, for every operator, width and sign.

This covers `kernels/int8_convolution.py`, `kernels/int8_levels.py` and `kernels/triton_products.py` too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ana_fx.kernels.exact_products import Int8Sum, int8_matrix_products, int8_products
from ana_fx.kernels.int8_convolution import Convolvable
from ana_fx.kernels.int8_levels import Finish
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.operators.transposed_convolution import TransposedConvolution
from ana_fx.requantizers.staircase import QLinearStaircase
from tests.kernel_helpers import DEVICE, needs_kernels

pytestmark = needs_kernels

UNSIGNED, SIGNED, IMAGE = IntegerType(8, False), IntegerType(8, True), IntegerType(8, True, zero_point=117)
SCALE = torch.tensor(0.037, device=DEVICE)


def products(operator: Convolvable, x: Tensor, w: Tensor, kind: IntegerType, finish: Finish | None = None) -> Tensor:
    run = int8_products(operator, w.float().to(DEVICE), kind, finish)
    return run((x.float().to(DEVICE) * SCALE,), (SCALE,)).cpu()


def numbers(kind: IntegerType, shape: tuple[int, ...], *, is_extreme: bool) -> Tensor:
    return torch.full(shape, kind.qmax) if is_extreme else torch.randint(kind.qmin, kind.qmax + 1, shape)


def staircase(channels: int) -> QLinearStaircase:
    bias = torch.randint(-4000, 4000, (channels,), dtype=torch.int32)
    weight_scale = torch.rand(channels) * 0.01 + 1e-4
    return QLinearStaircase(0, 255, 3, bias, torch.tensor(0.037), weight_scale, torch.tensor(0.11))


@pytest.mark.parametrize("is_extreme", [False, True])
@pytest.mark.parametrize("kind", [UNSIGNED, SIGNED, IMAGE], ids=str)
@pytest.mark.parametrize(
    ("channels", "out", "groups", "kernel", "stride", "padding", "dilation"),
    [
        (3, 8, 1, 3, 2, (1, 1), 1),  # fewer channels than a block of products
        (40, 36, 1, 2, 1, (0, 2), 2),
        (20, 20, 1, 1, 1, (0, 0), 1),
        (8, 12, 4, 3, 1, (1, 1), 1),
        (6, 12, 6, 3, 2, (1, 1), 1),
    ],
)
def test_a_convolution_gives_the_sums_of_int64(
    kind, channels, out, groups, kernel, stride, padding, dilation, is_extreme
):
    x = numbers(kind, (2, channels, 6, 7), is_extreme=is_extreme)
    w = torch.randint(-127, 128, (out, channels // groups, kernel, kernel))
    if is_extreme:
        w = torch.full_like(w, 127) * (-1) ** torch.arange(out).reshape(-1, 1, 1, 1)
    expected = F.conv2d(F.pad(x, padding * 2), w, None, stride, 0, dilation, groups)
    operator = Convolution((stride,) * 2, (padding,) * 2, (dilation,) * 2, groups)
    assert torch.equal(products(operator, x, w, kind).long(), expected)
    assert torch.equal(products(operator, x.to(memory_format=torch.channels_last), w, kind).long(), expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", [UNSIGNED, SIGNED], ids=str)
def test_every_rank_and_the_transposed_convolution_give_the_sums_of_int64(rank, kind):
    x, w = numbers(kind, (2, 4, *[5] * rank), is_extreme=False), torch.randint(-127, 128, (4, 3, *[3] * rank))
    transposed = TransposedConvolution((2,) * rank, (1,) * rank, (1,) * rank, (1,) * rank, 1, (3,) * rank)
    convolve, transpose = getattr(F, f"conv{rank}d"), getattr(F, f"conv_transpose{rank}d")
    expected = transpose(x.double(), w.double(), None, 2, 1, 1).long()
    assert torch.equal(products(transposed, x, transposed.integer_weight(w), kind).long(), expected)
    plain = Convolution((1,) * rank, ((1, 1),) * rank, (1,) * rank, 1)
    w = w.transpose(0, 1).contiguous()
    assert torch.equal(products(plain, x, w, kind).long(), convolve(x.double(), w.double(), None, 1, 1).long())


@pytest.mark.parametrize("kind", [UNSIGNED, SIGNED], ids=str)
@pytest.mark.parametrize("shape", [(1, 40, 10), (7, 70, 33)])
def test_a_linear_map_gives_the_sums_of_int64(kind, shape):
    m, k, n = shape
    x, w = numbers(kind, (m, k), is_extreme=False), torch.randint(-127, 128, (n, k))
    assert torch.equal(products(Linear(), x, w, kind).long(), x @ w.t())


@pytest.mark.parametrize("first", [UNSIGNED, SIGNED], ids=str)
@pytest.mark.parametrize("second", [UNSIGNED, SIGNED], ids=str)
def test_a_matrix_product_gives_the_sums_of_int64(first, second):
    a, b = numbers(first, (2, 1, 9, 35), is_extreme=False), numbers(second, (3, 35, 11), is_extreme=False)
    tensors = (a.float().to(DEVICE) * SCALE, b.float().to(DEVICE) * SCALE)
    found = int8_matrix_products([first, second])(tensors, (SCALE, SCALE))
    assert torch.equal(found.cpu().long(), a @ b)


MOVES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "matrices": ((9, 35), lambda x: x),
    "heads": ((2, 9, 3, 35), lambda x: x.transpose(1, 2)),
    "transposed": ((2, 3, 35, 9), lambda x: x.transpose(-2, -1)),
    "with gaps": ((2, 3, 9, 70), lambda x: x[..., ::2]),
    "repeated": ((3, 9, 35), lambda x: x.expand(2, 3, 9, 35)),
    "many batch axes": ((2, 2, 9, 3, 35), lambda x: x.transpose(2, 3)),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_matrix_product_takes_tensors_however_they_lie_in_memory(move):
    shape, moved = MOVES[move]
    x = numbers(SIGNED, shape, is_extreme=False)
    a, there = moved(x), moved(x.float().to(DEVICE) * SCALE)
    run = int8_matrix_products([SIGNED, SIGNED])
    assert torch.equal(run((there, there.mT), (SCALE, SCALE)).cpu().long(), a @ a.mT)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_staircase_in_the_kernel_is_the_staircase(groups):
    x, w = torch.randint(0, 256, (2, 4, 5, 6)), torch.randint(-127, 128, (8, 4 // groups, 3, 3))
    steps, output_scale = staircase(8), torch.tensor(0.11)
    finish = Finish.of(steps, output_scale, 8)
    there = Finish(finish.slope.to(DEVICE), finish.bias.to(DEVICE), finish.ends.to(DEVICE), finish.factor)
    expected = steps.level(F.conv2d(x, w, None, groups=groups).int(), 1) * output_scale
    operator = Convolution((1, 1), ((0, 0),) * 2, (1, 1), groups)
    assert torch.equal(products(operator, x, w, UNSIGNED, there), expected)


def test_the_sum_of_two_tensors_is_the_staircase_of_their_weighted_sum():
    a, b = torch.randint(0, 256, (2, 3, 5)), torch.randint(-128, 128, (2, 3, 5))
    steps, output_scale, coefficients = staircase(1), torch.tensor(0.11), torch.tensor([130.0, -77.0])
    finish = Finish.of(steps, output_scale, 1)
    there = Finish(finish.slope.to(DEVICE), finish.bias.to(DEVICE), finish.ends.to(DEVICE), finish.factor)
    run = Int8Sum(coefficients.to(DEVICE), torch.tensor([-1.0], device=DEVICE), there)
    tensors = (a.float().to(DEVICE) * SCALE, b.float().to(DEVICE) * SCALE)
    assert run.takes(tensors)
    expected = steps.level((130 * a - 77 * b).neg().int(), 1) * output_scale
    assert torch.equal(run(tensors, (SCALE, SCALE)).cpu(), expected)
