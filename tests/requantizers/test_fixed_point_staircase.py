"""Fixed-point staircases against the formulas in Python's own integers, and their thresholds by brute force.

This covers `requantizers/requantizer.py` too.
"""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase, fit_fixed_point, in_fixed_point
from ana_fx.requantizers.line_fit import LineFit
from ana_fx.requantizers.multiply_shift import encode
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase

ROUNDINGS = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)
BOUND = 700
CHANNELS = 4

seeds = st.integers(0, 2**31)
level_ranges = st.sampled_from([(-128, 127), (0, 255), (0, 15), (-1, 1), (0, 3)])
roundings = st.sampled_from(ROUNDINGS)


def random_staircase(seed, lo, hi, rounding):
    """Channels with all slopes from a fortieth of a level to ten levels; every second one a power of two, with ties."""
    torch.manual_seed(seed)
    factor = int(torch.randint(0, 9, ())) * 2 + 1
    slope = torch.exp2(torch.rand(CHANNELS) * 9 - 5.5)
    slope[::2] = torch.exp2(torch.randint(-6, 3, (CHANNELS // 2,)).float())
    bias = torch.randint(-BOUND * factor, BOUND * factor, (CHANNELS,), dtype=torch.int32)
    x_scale, y_scale = torch.tensor(0.25), torch.tensor(2.0)
    plain = QLinearStaircase(lo, hi, factor, bias, x_scale, slope * (y_scale / x_scale), y_scale)
    return in_fixed_point(plain, rounding)


def expected(staircase, channel, accumulator):
    """The level of one accumulator, in integers of any length."""
    slope = staircase.x_scale.double() * staircase.weight_scale[channel].double() / staircase.y_scale.double()
    fraction, exponent = math.frexp(float(slope))
    multiplier = math.floor(Fraction(fraction) * 2**31 + Fraction(1, 2))
    stored = accumulator * staircase.factor + int(staircase.bias[channel])
    if staircase.rounding == "single rounding":
        return half_up(Fraction(stored * multiplier, 2 ** (31 - exponent)))
    first = half_up(Fraction(stored * 2 ** max(exponent, 0) * multiplier, 2**31))
    rest = Fraction(first, 2 ** max(-exponent, 0))
    if staircase.rounding == "q31":
        return half_up(abs(rest)) * (1 if rest >= 0 else -1)
    return half_up(rest)


def half_up(x):
    return math.floor(x + Fraction(1, 2))


@given(seed=seeds, ends=level_ranges, rounding=roundings)
def test_levels_are_those_of_the_formula(seed, ends, rounding):
    staircase = random_staircase(seed, *ends, rounding)
    accumulators = torch.randint(-BOUND, BOUND, (CHANNELS, 40))
    found = staircase.level(accumulators, 0)
    wanted = [[expected(staircase, c, a) for a in row] for c, row in enumerate(accumulators.tolist())]
    assert torch.equal(found, torch.tensor(wanted).clamp(*ends).float())


@given(seed=seeds, ends=level_ranges, rounding=roundings)
def test_thresholds_are_the_first_accumulators_of_each_level(seed, ends, rounding):
    staircase = random_staircase(seed, *ends, rounding)
    lowest, highest = torch.full((CHANNELS,), -BOUND), torch.full((CHANNELS,), BOUND)
    levels = staircase.level(torch.arange(-BOUND, BOUND + 1).expand(CHANNELS, -1), 0)
    wanted = torch.searchsorted(levels, torch.arange(ends[0] + 1.0, ends[1] + 1.0).expand(CHANNELS, -1).contiguous())
    assert torch.equal(staircase.thresholds(lowest, highest), lowest[:, None] + wanted)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_multiply_and_shift_encodes_it_and_the_proof_holds(rounding):
    staircase = random_staircase(3, -128, 127, rounding)
    lowest, highest = torch.full((CHANNELS,), -BOUND), torch.full((CHANNELS,), BOUND)
    thresholds = staircase.thresholds(lowest, highest)
    encoding = encode(thresholds, staircase.slope, lowest, highest, -128, 127)
    assert encoding is not None
    assert bool(encoding.is_threshold(thresholds, lowest, highest).all())


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_fit_is_within_a_level_of_its_line(rounding):
    """Half a level of rounding to a level, and less than half of rounding the bias and of the first rounding."""
    gain, offset = torch.tensor([0.3, -0.02, 0.004]).double(), torch.tensor([1.0, -3.0, 0.2]).double()
    line = LineFit(gain, offset, torch.tensor(0.1), torch.tensor(0.05), Levels(-128, 127, 0.5), BOUND)
    staircase, sign = fit_fixed_point(line, 9, rounding)
    accumulators = torch.arange(-BOUND, BOUND + 1).expand(3, -1)
    signed = accumulators * sign[:, None].long()
    real = (gain[:, None] * 0.1 * accumulators + offset[:, None]) / 0.05
    assert float((staircase.level(signed, 0) - real.clamp(-128, 127)).abs().max()) < 1


def test_another_rounding_is_refused():
    plain = random_staircase(0, 0, 3, Requantizer.Q31)
    own = {name: value for name, value in vars(plain).items() if name != "rounding"}
    with pytest.raises(ValueError, match="rounding is one of"):
        FixedPointStaircase(**own, rounding="shift")
