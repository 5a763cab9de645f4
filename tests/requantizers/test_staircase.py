"""Staircases: their thresholds by brute force, and how near they come to the line that they stand for.

This covers `requantizers/line_fit.py` too.
"""

from bisect import bisect_left

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.line_fit import LineFit, ShiftArithmetic, fit_qlinear, fit_shift
from ana_fx.requantizers.staircase import QLinearStaircase, ShiftStaircase, along, integer_dtype

BOUND = 2000
ULP = 2.0**-24  # relative error of one float32 rounding
FLATTEST = 2.0**-21  # a stored unit of less than this is taken for nothing

seeds = st.integers(0, 2**31)
level_ranges = st.tuples(st.integers(-128, 0), st.integers(0, 255)).filter(lambda ends: 1 <= ends[1] - ends[0] <= 255)


def every_accumulator(num_channels):
    return torch.arange(-BOUND, BOUND + 1).expand(num_channels, -1)


def random_qlinear(seed, lo, hi, channels=4):
    """Steep and flat channels whose steps lie inside the range, at its ends and beyond."""
    torch.manual_seed(seed)
    factor = int(torch.randint(0, 64, ())) * 2 + 1
    scale = 2.0 ** (torch.rand(channels) * 12 - 9) / factor
    bias = (torch.rand(channels) * 2 - 1) * 2 * BOUND * factor
    x_scale, y_scale = torch.rand(2) + 0.1
    return QLinearStaircase(lo, hi, factor, bias.to(torch.int32), x_scale, scale, y_scale)


def random_shift(seed, lo, hi, channels=4):
    """The same of the other family."""
    torch.manual_seed(seed)
    multiplier = torch.randint(0, 2**16, (channels,))
    shift = torch.randint(8, 25, (channels,))
    offset = ((torch.rand(channels) * 2 - 1) * 2.0**shift * 64).long()
    return ShiftStaircase(lo, hi, multiplier, offset, shift)


families = st.sampled_from([random_qlinear, random_shift])


@given(seed=seeds, ends=level_ranges, family=families)
def test_levels_never_fall_and_stay_in_range(seed, ends, family):
    levels = family(seed, *ends).level(every_accumulator(4), 0)
    assert levels.dtype == torch.float32
    assert torch.equal(levels, levels.round())
    assert bool((levels.diff() >= 0).all())
    assert ends[0] <= int(levels.min()) <= int(levels.max()) <= ends[1]


@given(seed=seeds, ends=level_ranges, family=families)
def test_thresholds_are_the_first_accumulators_of_each_level(seed, ends, family):
    staircase = family(seed, *ends)
    lowest, highest = torch.randint(-BOUND, 1, (4,)), torch.randint(0, BOUND + 1, (4,))
    found = staircase.thresholds(lowest, highest)
    for channel, levels in enumerate(staircase.level(every_accumulator(4), 0)):
        seen = levels[lowest[channel] + BOUND : highest[channel] + BOUND + 1]
        num_lower = torch.searchsorted(seen, torch.arange(ends[0] + 1.0, ends[1] + 1.0))
        assert torch.equal(found[channel], lowest[channel] + num_lower)


def first_of_level(staircase, channel, level, low, high):
    """By plain bisection: the first accumulator in [low, high] of a level, or high + 1."""

    def reaches(accumulator):
        accumulators = torch.full((len(staircase.slope), 1), accumulator)
        return float(staircase.level(accumulators, 0)[channel]) >= level

    return bisect_left(range(low, high + 1), True, key=reaches) + low


@settings(max_examples=25)
@given(seed=seeds, size=st.integers(20, 29), is_dyadic=st.booleans())
def test_thresholds_are_right_where_float32_rounds_whole_accumulators_away(seed, size, is_dyadic):
    torch.manual_seed(seed)
    slope = 2.0 ** (8 - size + torch.randint(-2, 3, (3,))) * (1.0 if is_dyadic else 1 + torch.rand(3))  # dyadic: ties
    bias, one = torch.randint(-(2 ** (size - 1)), 2 ** (size - 1), (3,)).to(torch.int32), torch.ones(())
    staircase = QLinearStaircase(-8, 7, 1, bias, one, slope, one)
    end = torch.full((3,), 2 ** (size - 1))
    found = staircase.thresholds(-end, end)
    assert bool(staircase.is_threshold(found, -end, end).all())
    for channel, index in ((0, 0), (1, 7), (2, 14)):
        assert int(found[channel, index]) == first_of_level(staircase, channel, index - 7, -int(end[0]), int(end[0]))


@pytest.mark.parametrize("family", [random_qlinear, random_shift])
def test_thresholds_over_a_single_accumulator_are_it_or_the_next(family):
    staircase, only = family(0, -8, 7), torch.full((4,), 3)
    levels = staircase.level(only[:, None], 0)
    assert torch.equal(staircase.thresholds(only, only), torch.where(levels >= torch.arange(-7, 8), 3, 4))


@pytest.mark.parametrize("family", [random_qlinear, random_shift])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_may_lie_on_any_axis(family, axis):
    staircase, accumulators = family(0, -8, 7), every_accumulator(4).reshape(4, -1, 1)
    expected = staircase.level(accumulators, 0)
    found = staircase.level(accumulators.movedim(0, axis), axis)
    assert torch.equal(found.movedim(axis, 0), expected)


def ideal(line, accumulator, units, slack):
    """The level of the line itself, for some accumulator units and levels more; a row for each channel."""
    moved = accumulator + torch.sign(line.gain)[:, None] * units
    u = (line.gain[:, None] * float(line.x_scale) * moved + line.offset[:, None]) / float(line.y_scale)
    return torch.floor(u + line.levels.offset + slack).clamp(line.levels.lo, line.levels.hi)


def assert_near(line, staircase, sign, units, factor):
    """Every level is that of the line at most `units` of an accumulator to the left or right."""
    accumulators = every_accumulator(len(line.gain))
    found = staircase.level(accumulators * sign.long()[:, None], 0).double()
    # Five float32 roundings of at most 257 levels, and what a channel taken for constant may swing.
    slack = 5 * ULP * 257 + line.exact_slope[:, None].clamp_max(FLATTEST * factor) * BOUND
    is_low, is_high = found < ideal(line, accumulators, -units, -slack), found > ideal(line, accumulators, units, slack)
    wrong = (is_low | is_high).any(1)
    assert line.gain[wrong].tolist() == []


def random_line(seed, ends, offset):
    """Lines of either sign that cross the levels somewhere near the range, or not at all."""
    torch.manual_seed(seed)
    x_scale, y_scale = 2.0 ** (torch.rand(2) * 8 - 4)
    slope = 2.0 ** (torch.rand(6) * 14 - 10) * torch.randn(6).sign()
    target = torch.randn(6) * 2.0 ** (torch.rand(6) * 14)
    gain, real_offset = slope.double() * float(y_scale / x_scale), target.double() * float(y_scale)
    return LineFit(gain, real_offset, x_scale, y_scale, Levels(*ends, offset), BOUND)


@given(seed=seeds, ends=level_ranges, offset=st.sampled_from([0.5, 0.0]), half=st.integers(0, 63))
def test_qlinear_is_within_one_unit_of_the_bias_of_its_line(seed, ends, offset, half):
    line, factor = random_line(seed, ends, offset), 2 * half + 1
    staircase, sign = fit_qlinear(line, factor)
    units = (0.5 if offset == 0.5 else 1.0) / factor  # the bias is rounded, or for floor raised to an integer
    assert_near(line, staircase, sign, units, factor)


@given(seed=seeds, ends=level_ranges, offset=st.sampled_from([0.5, 0.0]))
def test_shift_is_within_its_multiplier_s_rounding_of_its_line(seed, ends, offset):
    line = random_line(seed, ends, offset)
    staircase, sign = fit_shift(line, ShiftArithmetic())
    units = BOUND * 2.0**-16 + 2.0**-15  # a multiplier of 16 bits is rounded, and the offset of as many bits cut off
    assert_near(line, staircase, sign, units, 1)


@given(seed=seeds, ends=level_ranges, bits=st.integers(24, 64), is_common=st.booleans())
def test_no_sum_of_a_shift_leaves_its_width(seed, ends, bits, is_common):
    staircase, _ = fit_shift(random_line(seed, ends, 0.5), ShiftArithmetic(bits, is_common))
    products = staircase.multiplier[:, None] * torch.tensor([-BOUND, BOUND])
    sums = products + staircase.offset[:, None]
    assert int(torch.cat([products, sums, staircase.offset[:, None]], 1).abs().max()) < 2 ** (bits - 1)
    assert int(staircase.shift.max()) <= bits - 2
    assert not is_common or len(staircase.shift.unique()) == 1


def test_more_bits_bring_a_shift_nearer_to_its_line():
    line = random_line(0, (-8, 7), 0.5)
    errors = []
    for bits in (20, 24, 28, 32):
        staircase, _ = fit_shift(line, ShiftArithmetic(bits))
        errors.append(float((staircase.slope / line.exact_slope - 1).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 16  # twelve bits more, of which the flat channels get fewer


AWKWARD = [0.0, -0.0, 1e-30, -1e-30, 1e-9, -1e-9, 1.0, -1.0, 1e9, -1e9, 1e30, -1e30]


FITS = {
    "qlinear": lambda line: fit_qlinear(line, 1),
    "qlinear with head-room": lambda line: fit_qlinear(line, 63),
    "shift": lambda line: fit_shift(line, ShiftArithmetic()),
    "shift in 40 bits": lambda line: fit_shift(line, ShiftArithmetic(40)),
}


@pytest.mark.parametrize("size", [0.0, 0.3, -3.0, 1e9, -1e9, 1e30, -1e30])
@pytest.mark.parametrize("offset", [0.5, 0.0])
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_awkward_gains_and_offsets_come_within_one_unit(fit, offset, size):
    gain = torch.tensor(AWKWARD, dtype=torch.float64)
    scales = torch.tensor([0.02, 0.3])
    line = LineFit(gain, torch.full_like(gain, size), *scales, Levels(-8, 7, offset), BOUND)
    staircase, sign = fit(line)
    assert_near(line, staircase, sign, 1.0, 63)
    assert set(sign.tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
@pytest.mark.parametrize("offset", [0.5, 0.0])
def test_a_channel_without_gain_has_the_level_of_its_offset(fit, offset):
    real = torch.linspace(-6.0, 6.0, 48, dtype=torch.float64) + 0.01  # no tie
    line = LineFit(torch.zeros_like(real), real, torch.tensor(0.1), torch.tensor(0.5), Levels(-8, 7, offset), BOUND)
    staircase, sign = fit(line)
    expected = torch.floor(real / 0.5 + offset).clamp(-8, 7)
    levels = staircase.level(every_accumulator(48) * sign.long()[:, None], 0)
    assert torch.equal(levels.double(), expected[:, None].expand_as(levels))


def test_qlinear_is_the_formula_of_onnxruntime():
    staircase = random_qlinear(3, -128, 127)
    accumulators = every_accumulator(4)
    stored = accumulators.numpy() * staircase.factor + staircase.bias.numpy()[:, None]
    slope = staircase.x_scale.numpy() * staircase.weight_scale.numpy() / staircase.y_scale.numpy()
    expected = (stored.astype("float32") * slope[:, None]).round().clip(-128, 127)  # NumPy rounds half to even
    assert (staircase.level(accumulators, 0).numpy() == expected).all()


def test_integers_are_wide_enough_for_a_sum_its_bias_and_their_sum():
    assert integer_dtype(2**29 - 1) == torch.int32
    assert integer_dtype(2**29) == torch.int64


def test_along_puts_channels_on_one_axis():
    assert along(torch.arange(3), 1, 4).shape == (1, 3, 1, 1)
