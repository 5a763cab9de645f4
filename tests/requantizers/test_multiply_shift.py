"""The integer requantizer: equal to any staircase on every accumulator, with the smallest shift."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.requantizers.multiply_shift import MultiplyShift, encode
from ana_fx.requantizers.staircase import QLinearStaircase

BOUND = 3000

seeds = st.integers(0, 2**31)
level_ranges = st.tuples(st.integers(-128, 0), st.integers(0, 255)).filter(lambda ends: 1 <= ends[1] - ends[0] <= 255)


def random_staircases(seed, lo, hi, channels=3):
    """Staircases of the float32 formula, from steep to flat, with steps inside and outside the range."""
    torch.manual_seed(seed)
    factor = int(torch.randint(0, 64, ())) * 2 + 1
    slope = 2.0 ** (torch.rand(channels) * 13 - 10) / factor
    bias = (torch.rand(channels) * 2 - 1) * 1.5 * BOUND * factor
    x_scale, y_scale = torch.rand(2) + 0.1
    return QLinearStaircase(lo, hi, factor, bias.to(torch.int32), x_scale, slope * y_scale / x_scale, y_scale)


def encoded(staircase, lowest, highest):
    """Its encoding on a range."""
    thresholds = staircase.thresholds(lowest, highest)
    return encode(thresholds, staircase.slope, lowest, highest, int(staircase.lo), int(staircase.hi))


def assert_equal_everywhere(found, staircase, lowest, highest):
    """The same level on every accumulator of each channel's range."""
    accumulators = torch.arange(int(lowest.min()), int(highest.max()) + 1).expand(len(lowest), -1)
    is_reachable = (accumulators >= lowest[:, None]) & (accumulators <= highest[:, None])
    is_wrong = found.level(accumulators, 0) != staircase.level(accumulators, 0)
    assert (is_wrong & is_reachable).nonzero().tolist() == []


@given(seed=seeds, ends=level_ranges)
def test_random_staircases_are_encoded_exactly(seed, ends):
    staircase = random_staircases(seed, *ends)
    lowest, highest = torch.randint(-BOUND, 1, (3,)), torch.randint(0, BOUND + 1, (3,))
    assert_equal_everywhere(encoded(staircase, lowest, highest), staircase, lowest, highest)


@pytest.mark.parametrize("count", range(2, 257, 2))
def test_every_number_of_levels_is_encoded_exactly(count):
    lo = -(count // 2)
    staircase = random_staircases(count, lo, lo + count - 1, channels=2)
    ends = torch.full((2,), BOUND)
    assert_equal_everywhere(encoded(staircase, -ends, ends), staircase, -ends, ends)


@pytest.mark.parametrize("slope", [0.0, 1e-9, 1.0, 300.0, 1e9])
def test_flat_and_steep_staircases_are_encoded_exactly(slope):
    one = torch.ones(())
    staircase = QLinearStaircase(-8, 7, 1, torch.tensor([0, 1, -1, 7]), one, torch.full((4,), slope), one)
    ends = torch.full((4,), 50)
    assert_equal_everywhere(encoded(staircase, -ends, ends), staircase, -ends, ends)


@given(seed=seeds)
def test_a_range_of_one_accumulator_is_encoded_exactly(seed):
    staircase, only = random_staircases(seed, -8, 7), torch.randint(-BOUND, BOUND, (3,))
    assert_equal_everywhere(encoded(staircase, only, only), staircase, only, only)


def fits(levels, accumulators, multiplier, shift, lo, hi):
    """Whether any offset at all makes a multiplier and a shift equal to the levels."""
    product = multiplier * accumulators
    least, most = (lo << shift) - int(product.max()), (hi + 1 << shift) - int(product.min())
    offsets = torch.arange(least, most + 1)[:, None]
    return bool((((product + offsets) >> shift).clamp(lo, hi) == levels).all(1).any())


@settings(max_examples=30)
@given(seed=seeds, ends=st.sampled_from([(0, 1), (-1, 1), (0, 3), (-2, 1), (-4, 3), (0, 7)]))
def test_no_smaller_shift_fits_with_the_slope_rounded_down_or_up(seed, ends):
    torch.manual_seed(seed)
    one, (lo, hi) = torch.ones(()), ends
    slope, bias = torch.rand(1) * 0.5 + 0.02, torch.randint(-20, 20, (1,))
    staircase, end = QLinearStaircase(lo, hi, 1, bias, one, slope, one), torch.tensor([40])
    found = encoded(staircase, -end, end)
    accumulators = torch.arange(-40, 41)
    levels = staircase.level(accumulators[None], 0)[0].long()
    for shift in range(int(found.shift) + 1):
        exact = float(slope) * 2**shift
        is_fit = any(fits(levels, accumulators, m, shift, lo, hi) for m in {int(exact), int(-(-exact // 1))})
        assert is_fit == (shift == int(found.shift))
    assert int(found.multiplier) in {int(exact), int(-(-exact // 1))}


def line_with_a_kink():
    """Thresholds five apart, but for one that comes late and one that comes early: no line has them."""
    return torch.tensor([[-10, -5, 1, 4, 10, 15]])


def levels_of(thresholds, accumulators, lo):
    """The plainest staircase: count the thresholds that are reached."""
    return lo + (accumulators[:, None] >= thresholds).sum(1)


def test_thresholds_that_no_line_fits_are_corrected():
    thresholds, end = line_with_a_kink(), torch.tensor([100])
    found = encode(thresholds, torch.tensor([0.2], dtype=torch.float64), -end, end, -3, 3)
    accumulators = torch.arange(-100, 101)
    assert found.correction.shape == (1, 7)
    assert torch.equal(found.level(accumulators[None], 0)[0].long(), levels_of(thresholds, accumulators, -3))
    uncorrected = MultiplyShift(-3, 3, found.multiplier, found.offset, found.shift)
    excess = uncorrected.level(accumulators[None], 0)[0].long() - levels_of(thresholds, accumulators, -3)
    assert set(excess.tolist()) == {0, 1}  # a line that is at most one level too high


def test_channels_with_and_without_a_kink_are_encoded_together():
    thresholds = torch.cat([line_with_a_kink(), torch.arange(-10, 20, 5)[None], line_with_a_kink() * 3])
    end, slope = torch.full((3,), 100), torch.tensor([1 / 5, 1 / 5, 1 / 15], dtype=torch.float64)
    found = encode(thresholds, slope, -end, end, -3, 3)
    accumulators = torch.arange(-100, 101)
    expected = torch.stack([levels_of(channel, accumulators, -3) for channel in thresholds])
    assert torch.equal(found.level(accumulators.expand(3, -1), 0).long(), expected)
    images = accumulators.expand(2, 3, -1)
    assert torch.equal(found.level(images, 1).long(), expected.expand(2, -1, -1))
    assert torch.equal(found.level(images.movedim(1, 2), 2).long(), expected.T.expand(2, -1, -1))


@settings(max_examples=50)
@given(seed=seeds, count=st.integers(3, 256))
def test_a_line_whose_thresholds_are_off_by_one_is_encoded_exactly(seed, count):
    torch.manual_seed(seed)
    width = 4 + 20 * float(torch.rand(()))
    line = torch.arange(1, count) * width + torch.randint(-BOUND, BOUND // 2, ()) + torch.randint(0, 2, (count - 1,))
    thresholds, end, lo = line.floor().long()[None], torch.tensor([2 * BOUND]), -(count // 2)
    reachable = thresholds.clamp(-end + 1, end + 1)
    found = encode(reachable, torch.tensor([1 / width], dtype=torch.float64), -end, end, lo, lo + count - 1)
    accumulators = torch.arange(-2 * BOUND, 2 * BOUND + 1)
    assert torch.equal(found.level(accumulators[None], 0)[0].long(), levels_of(reachable, accumulators, lo))


def test_thresholds_far_from_any_line_have_no_encoding():
    thresholds, end = torch.tensor([[-90, -89, -88, 80]]), torch.tensor([100])
    assert encode(thresholds, torch.tensor([0.02], dtype=torch.float64), -end, end, -2, 2) is None


def test_multiplier_bits_are_those_of_the_largest_multiplier():
    zero = torch.zeros(3, dtype=torch.int64)
    bits = [
        MultiplyShift(0, 1, torch.tensor([0, 1, largest]), zero, zero).multiplier_bits for largest in (1, 7, 8, 255)
    ]
    assert bits == [1, 3, 4, 8]


@pytest.mark.parametrize("level", [-1, 0, 3])
def test_one_level_needs_no_multiplier(level):
    lowest, highest = torch.tensor([-5, 0]), torch.tensor([7, 9])
    found = encode(torch.zeros(2, 0, dtype=torch.int64), torch.rand(2).double(), lowest, highest, level, level)
    assert found.multiplier_bits == 0
    assert set(found.level(torch.arange(-5, 10).expand(2, -1), 0).flatten().tolist()) == {level}
