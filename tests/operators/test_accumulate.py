"""Accumulators against NumPy's int64, at every size and in every shape.

This covers `operators/convolution.py` too.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.interpolation import Interpolation
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.sum import Sum
from tests.references import convolve, windows

aten = torch.ops.aten


def exactly(operator, inputs, weight, bound):
    """The accumulators, from int64 tensors."""
    found = accumulate(operator, inputs, weight, bound=bound, integer=torch.int64)
    assert found.dtype == torch.int64
    return found.numpy()


def bound_of(x, weight):
    """What a caller knows: fan-in times the largest weight times the largest level."""
    return weight[0].numel() * int(weight.abs().max()) * int(x.abs().max())


SIZES = {1: (11,), 2: (7, 6), 3: (5, 5, 6)}
CONVOLUTIONS = [
    pytest.param(rank, stride, padding, dilation, groups, id=f"{rank}d-{stride}-{padding}-{dilation}-{groups}")
    for rank in SIZES
    for stride, padding, dilation, groups in itertools.product([1, 2], [(0, 0), (1, 1), (2, 1)], [1, 2], [1, 4])
]


@pytest.mark.parametrize(("rank", "stride", "padding", "dilation", "groups"), CONVOLUTIONS)
def test_convolutions_are_exact(rank, stride, padding, dilation, groups):
    convolution = Convolution((stride,) * rank, (padding,) * rank, (dilation,) * rank, groups)
    x = torch.randint(-128, 256, (2, 4, *SIZES[rank]))
    weight = torch.randint(-128, 128, (8, 4 // groups, *(2, 3, 1)[:rank]))
    expected = convolve(x.numpy(), weight.numpy(), convolution)
    for bound in (bound_of(x, weight), 2**24, 2**28):  # a larger bound chooses other kernels
        np.testing.assert_array_equal(exactly(convolution, (x,), weight, bound), expected)


def test_every_axis_has_its_own_stride_padding_and_dilation():
    convolution = Convolution((1, 3, 2), ((0, 2), (1, 0), (3, 3)), (2, 1, 3), 2)
    x, weight = torch.randint(0, 256, (2, 6, 7, 8, 9)), torch.randint(-8, 8, (4, 3, 2, 4, 3))
    expected = convolve(x.numpy(), weight.numpy(), convolution)
    np.testing.assert_array_equal(exactly(convolution, (x,), weight, bound_of(x, weight)), expected)


LARGEST = {"ternary": 1, "int2": 2, "int3": 4, "int4": 8, "int6": 32, "int8": 127}


@pytest.mark.parametrize("size", [2**22, 2**24 - 1, 2**24 + 1, 2**26, 2**27 + 1, 2**28])
@pytest.mark.parametrize("largest", LARGEST.values(), ids=LARGEST)
def test_sums_of_any_size_are_exact_where_all_numbers_are_the_largest(largest, size):
    x = torch.full((1, -(-size // (255 * largest))), 255)
    weight = torch.tensor([[largest], [-largest]]).expand(2, x.shape[1])
    expected = x.numpy() @ weight.numpy().T
    np.testing.assert_array_equal(exactly(Linear(), (x,), weight, bound_of(x, weight)), expected)


@pytest.mark.parametrize("largest", LARGEST.values(), ids=LARGEST)
def test_odd_sums_beyond_the_integers_of_float32_are_exact(largest):
    fan_in = 2**24 // (255 * largest) + 2**12
    x = torch.randint(250, 256, (3, fan_in))
    weight = torch.randint(max(1, largest - 2), largest + 1, (4, fan_in))
    expected = x.numpy() @ weight.numpy().T
    np.testing.assert_array_equal(exactly(Linear(), (x,), weight, bound_of(x, weight)), expected)


def test_many_small_weights_beside_a_large_one_are_exact_at_the_tightest_bound():
    fan_in = 2**24 // 255 + 2**12
    x, weight = torch.randint(250, 256, (3, fan_in)), torch.ones(4, fan_in, dtype=torch.int64)
    weight[:, 0] = 127
    expected = x.numpy() @ weight.numpy().T
    np.testing.assert_array_equal(exactly(Linear(), (x,), weight, int(expected.max())), expected)


@pytest.mark.parametrize("channels", [64, 512, 600])
def test_convolutions_of_the_largest_numbers_are_exact(channels):
    convolution = Convolution((1, 1), ((1, 1), (1, 1)), (1, 1), 1)  # 3×3 is where Winograd's kernels would come in
    x, weight = torch.full((1, channels, 4, 4), 255), torch.randint(120, 128, (8, channels, 3, 3))
    expected = convolve(x.numpy(), weight.numpy(), convolution)
    np.testing.assert_array_equal(exactly(convolution, (x,), weight, bound_of(x, weight)), expected)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 5),
    fan_in=st.integers(1, 3000),
    bits=st.integers(2, 8),
    dtype=st.sampled_from([torch.float32, torch.int8, torch.int64]),
)
def test_linear_maps_are_exact_whatever_the_dtype(seed, batch, fan_in, bits, dtype):
    torch.manual_seed(seed)
    x = torch.randint(-128, 128, (batch, 2, fan_in)).to(dtype)
    weight = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (3, fan_in)).to(dtype)
    expected = x.long().numpy() @ weight.long().numpy().T
    np.testing.assert_array_equal(exactly(Linear(), (x,), weight, fan_in * 2 ** (bits - 1) * 128), expected)


AVERAGES = [
    (1, (3,), (2,), (1,)),
    (1, (2,), (2,), (0,)),
    (2, (2, 3), (1, 2), (1, 0)),
    (2, (3, 3), (3, 3), (1, 1)),
    (3, (2, 2, 2), (2, 1, 2), (0, 1, 1)),
]


@pytest.mark.parametrize(("rank", "kernel", "stride", "padding"), AVERAGES)
def test_averages_accumulate_the_sum_of_each_window(rank, kernel, stride, padding):
    average, x = Average(rank, kernel, stride, padding), torch.randint(-128, 128, (2, 3, 9, 8, 6)[: 2 + rank])
    views = windows(x.numpy(), kernel, stride, [(p, p) for p in padding], (1,) * rank)
    expected = views.sum(tuple(range(2 + rank, 2 + 2 * rank)))
    for bound in (128 * math.prod(kernel), 2**25):
        np.testing.assert_array_equal(exactly(average, (x,), None, bound), expected)


@pytest.mark.parametrize(("size", "output"), [((8, 6), (2, 3)), ((8, 6), (1, None)), ((300, 300), (1, 1))])
def test_adaptive_averages_accumulate_the_sum_of_each_window(size, output):
    x = torch.full((1, 2, *size), 255)
    kernel = tuple(s // (s if o is None else o) for s, o in zip(size, output, strict=True))
    expected = windows(x.numpy(), kernel, kernel, [(0, 0)] * 2, (1, 1)).sum((4, 5))
    found = exactly(Average(2, output_size=output), (x,), None, 255 * math.prod(kernel))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (1, 3, 1)), ((4,), (2, 3, 4))])
@pytest.mark.parametrize("coefficients", [(127, 127), (1, 4095), (4095, 4095)])
def test_sums_are_exact_and_broadcast(shapes, coefficients):
    first, second = (torch.randint(-128, 256, shape) for shape in shapes)
    expected = coefficients[0] * first.numpy() + coefficients[1] * second.numpy()
    for bound in (4095 * 510, 2**25):
        np.testing.assert_array_equal(exactly(Sum(), (first, second), torch.tensor(coefficients), bound), expected)


def test_the_identity_accumulates_its_input():
    x = torch.arange(-128, 256)
    np.testing.assert_array_equal(exactly(Identity(), (x,), None, 255), x.numpy())


def test_a_batch_gives_what_its_samples_give():
    convolution = Convolution((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    x, weight = torch.randint(0, 256, (64, 16, 8, 8)), torch.randint(-128, 128, (8, 16, 3, 3))
    together = exactly(convolution, (x,), weight, bound_of(x, weight))
    for sample in range(0, 64, 9):
        np.testing.assert_array_equal(
            exactly(convolution, (x[sample : sample + 1],), weight, bound_of(x, weight))[0], together[sample]
        )


class Bfloat16Products(TorchDispatchMode):
    """What processors with bfloat16 may do in float32 under `torch.set_float32_matmul_precision("medium")`."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.convolution.default):
            args = [_rounded(each) for each in args]
        return function(*args, **(kwargs or {}))


def _rounded(value):
    is_single = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.to(torch.bfloat16).to(torch.float32) if is_single else value


LEVELS = torch.randint(0, 256, (2, 3, 7, 9), generator=torch.Generator().manual_seed(0)).float()
WEIGHTS = torch.randint(-127, 128, (4, 3, 3, 3), generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize(
    ("operator", "inputs", "weight"),
    [
        (Interpolation(2, (13, 11), None, False), (LEVELS,), None),
        (Average(2, output_size=(4, 5)), (LEVELS,), None),
        (Average(2, (2, 3), (2, 2), (1, 1), ceil_mode=True, count_include_pad=False), (LEVELS,), None),
        (Convolution((1, 1), ((1, 1), (1, 1)), (1, 1), 1), (LEVELS,), WEIGHTS),
        (Linear(), (LEVELS,), WEIGHTS.flatten()[:36].reshape(4, 9)),
        (MatMul(), (LEVELS, LEVELS.transpose(2, 3)), None),
        (Sum(), (LEVELS, LEVELS), torch.tensor([4095, -3001])),
    ],
    ids=lambda each: type(each).__name__,
)
def test_products_in_bfloat16_change_nothing(operator, inputs, weight):
    """Eight bits are exact in bfloat16; numbers between two products have more, and are float64."""
    for bound in (2**20, 2**30):
        wanted = accumulate(operator, inputs, weight, bound=bound, integer=torch.int64)
        with Bfloat16Products():
            found = accumulate(operator, inputs, weight, bound=bound, integer=torch.int64)
        assert torch.equal(found, wanted)
