"""Averages and interpolation: integer matrices whose product is the average of reals, exactly or to a derived bound.

This covers `operators/average.py` and `operators/interpolation.py` too.
"""

import itertools
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.average import Average
from ana_fx.operators.interpolation import Interpolation

SIZES = {1: (11,), 2: (7, 6), 3: (5, 4, 6)}
FIXED = F.avg_pool1d, F.avg_pool2d, F.avg_pool3d
ADAPTIVE = F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d


def as_fractions(real, divisor):
    """Float64 averages of small integers as the fractions nearest to them; the divisor bounds the denominator."""
    return [Fraction(number).limit_denominator(divisor) for number in real.flatten().tolist()]


def assert_exact(average, x, wanted):
    """The accumulator divided is the average, in rationals; by every kernel.

    Fractions of denominators up to q lie 1 / q² apart, and |average| ≤ 128 is off by a few ulp, 2**-44: q < 2**20.
    """
    divisor = average.divisor(tuple(x.shape))
    assert divisor < 2**20
    rationals = [
        Fraction(number, divisor) for number in average.accumulate((x.double(),), None).long().flatten().tolist()
    ]
    assert rationals == as_fractions(wanted, divisor)
    bound = average.bound((255,), tuple(x.shape))
    for each in (bound, 2**28):
        found = accumulate(average, (x,), None, bound=each, integer=torch.int64)
        assert [Fraction(number, divisor) for number in found.flatten().tolist()] == rationals
        assert found.shape == wanted.shape


WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (3, 3, 0), (4, 3, 2), (1, 2, 0)]
POOLS = [
    pytest.param(rank, *window, ceil, counts, divisor, id=f"{rank}d-{window}-{ceil}-{counts}-{divisor}")
    for rank in SIZES
    for window, ceil, counts in itertools.product(WINDOWS, [False, True], [False, True])
    for divisor in ([None] if rank == 1 else [None, 1, 5])
]


@pytest.mark.parametrize(("rank", "k", "s", "p", "ceil", "counts", "divisor"), POOLS)
def test_an_average_is_its_accumulator_divided(rank, k, s, p, ceil, counts, divisor):
    x = torch.randint(-128, 128, (2, 3, *SIZES[rank]))
    settings = (ceil, counts) if rank == 1 else (ceil, counts, divisor)
    wanted = FIXED[rank - 1](x.double(), k, s, p, *settings)
    assert_exact(Average(rank, (k,) * rank, (s,) * rank, (p,) * rank, ceil, counts, divisor), x, wanted)


def test_every_axis_has_its_own_window():
    x = torch.randint(0, 256, (2, 3, 5, 8, 7))
    settings = ((2, 3, 4), (1, 2, 3), (1, 0, 2))
    average = Average(3, *settings, ceil_mode=True, count_include_pad=False)
    assert_exact(average, x, F.avg_pool3d(x.double(), *settings, True, False))


OUTPUTS = [
    *((1, (n,)) for n in (1, 2, 4, 11, 13)),
    *((2, sizes) for sizes in [(1, 1), (7, 6), (3, 4), (7, 2), (None, 1), (2, None), (9, 5)]),
    *((3, sizes) for sizes in [(1, 1, 1), (5, 2, 3), (2, 3, 4), (None, 3, 7)]),
]


@pytest.mark.parametrize(("rank", "outputs"), OUTPUTS)
def test_an_adaptive_average_is_its_accumulator_divided(rank, outputs):
    x = torch.randint(-128, 128, (2, 3, *SIZES[rank]))
    sizes = tuple(size if n is None else n for n, size in zip(outputs, SIZES[rank], strict=True))
    assert_exact(Average(rank, output_size=outputs), x, ADAPTIVE[rank - 1](x.double(), sizes))


@pytest.mark.parametrize(("rank", "outputs"), OUTPUTS)
def test_real_averages_are_torchs_own(rank, outputs):
    x = torch.randn(2, 3, *SIZES[rank])
    sizes = tuple(size if n is None else n for n, size in zip(outputs, SIZES[rank], strict=True))
    assert torch.equal(Average(rank, output_size=outputs).real((x,), None), ADAPTIVE[rank - 1](x, sizes))


def test_a_window_is_known_where_all_are_of_one_size():
    shape = (2, 3, 8, 6)
    assert Average(2, output_size=(4, 1)).window(shape) == ((2, 6), (2, 6), (0, 0))
    assert Average(2, output_size=(3, 1)).window(shape) is None
    assert Average(2, (2, 2), (2, 2), (0, 0), ceil_mode=True).window(shape) == ((2, 2), (2, 2), (0, 0))
    assert Average(2, (3, 3), (2, 2), (0, 0), ceil_mode=True).window(shape) is None
    assert Average(2, (3, 3), (2, 2), (1, 1), count_include_pad=False).window(shape) is None
    assert Average(2, (3, 3), (1, 1), (1, 1), False, False, 4).window(shape) == ((3, 3), (1, 1), (1, 1))


def test_a_fixed_average_has_its_window_written_out_and_the_same_numbers():
    x = torch.randint(-128, 128, (2, 3, 8, 6))
    adaptive = Average(2, output_size=(4, 1))
    fixed = adaptive.fixed(tuple(x.shape))
    assert fixed == Average(2, (2, 6), (2, 6), (0, 0))
    assert torch.equal(fixed.accumulate((x.double(),), None), adaptive.accumulate((x.double(),), None))
    uneven = Average(2, output_size=(3, 1))
    assert uneven.fixed(tuple(x.shape)) is uneven


@pytest.mark.parametrize("levels", [(-128, 127), (0, 255)])
@pytest.mark.parametrize(("rank", "outputs"), OUTPUTS)
def test_the_range_of_an_average_is_reached_at_its_corners(rank, outputs, levels):
    shape, average = (1, 2, *SIZES[rank]), Average(rank, output_size=outputs)
    low, high = average.accumulator_range(None, [levels], shape)
    for level, end in zip(levels, (low, high), strict=True):
        assert set(average.accumulate((torch.full(shape, level),), None).flatten().tolist()) == {int(end)}
    assert max(-int(low), int(high)) <= average.bound((max(-levels[0], levels[1]),), shape)


@pytest.mark.parametrize("divisor", [1, 3, 9, 100])
def test_the_range_of_an_average_with_a_divisor_holds(divisor):
    average, shape = Average(2, (3, 3), (1, 1), (1, 1), divisor_override=divisor), (1, 1, 5, 5)
    low, high = average.accumulator_range(None, [(-128, 127)], shape)
    for level in (-128, 127):
        found = average.accumulate((torch.full(shape, level).double(),), None)
        assert int(low) <= found.min()
        assert found.max() <= int(high)
        assert found.abs().max() <= average.bound((128,), shape)


INTERPOLATIONS = [
    pytest.param(rank, size, factor, corners, id=f"{rank}d-{size or factor}-{corners}")
    for rank, size, factor in [
        (1, (5,), None), (1, (11,), None), (1, (27,), None), (1, (1,), None),
        (1, None, (2.0,)), (1, None, (1.5,)), (1, None, (0.5,)), (1, None, (2.7,)),
        (2, (3, 13), None), (2, (14, 12), None), (2, (7, 6), None),
        (2, None, (2.0, 2.0)), (2, None, (0.5, 3.0)), (2, None, (1.3, 1.7)), (2, None, (4.0, 1.0)),
    ]
    for corners in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("rank", "size", "factor", "corners"), INTERPOLATIONS)
def test_each_row_of_an_interpolation_sums_to_one_unit(rank, size, factor, corners):
    matrices = Interpolation(rank, size, factor, corners).matrices((2, 3, *SIZES[rank]))
    assert len(matrices) == rank
    for matrix in matrices:
        assert matrix.sum(1).unique().tolist() == [64]
        assert int(matrix.min()) >= 0
        assert int((matrix > 0).sum(1).max()) <= 2


@pytest.mark.parametrize(("rank", "size", "factor", "corners"), INTERPOLATIONS)
def test_an_interpolation_is_near_torchs_own(rank, size, factor, corners):
    x, operator = torch.randint(-128, 128, (2, 3, *SIZES[rank])), Interpolation(rank, size, factor, corners)
    mode = "linear" if rank == 1 else "bilinear"
    wanted = F.interpolate(x.double(), size, factor, mode=mode, align_corners=corners)
    found = operator.accumulate((x,), None) / operator.divisor(tuple(x.shape))
    assert found.shape == wanted.shape
    # on each axis two weights are rounded, by the same 1/128 up and down: levels that differ by 255 move by 255/128
    assert float((found - wanted).abs().max()) <= rank * 255 / 128 + 2.0**-40


@pytest.mark.parametrize(("rank", "size", "factor", "corners"), INTERPOLATIONS)
def test_an_interpolation_keeps_constants(rank, size, factor, corners):
    operator, shape = Interpolation(rank, size, factor, corners), (1, 2, *SIZES[rank])
    low, high = operator.accumulator_range(None, [(-128, 127)], shape)
    for level, end in ((-128, low), (127, high)):
        found = accumulate(operator, (torch.full(shape, level),), None, bound=2**22, integer=torch.int64)
        assert found.unique().tolist() == [int(end)] == [64**rank * level]


def test_doubling_is_exact():
    """Weights of a quarter and three quarters, or of a half, are whole parts of 64."""
    x = torch.randint(0, 256, (2, 3, 7, 6))
    operator = Interpolation(2, None, (2.0, 2.0), False)
    wanted = F.interpolate(x.double(), scale_factor=(2.0, 2.0), mode="bilinear", align_corners=False)
    assert torch.equal(operator.accumulate((x,), None) / 64**2, wanted)
