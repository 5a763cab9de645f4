"""Annealing ranges and noise over time, against the formulas of the paper.

This covers `schedule/annealing_range.py` too.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy
from ana_fx.schedule.noise import NOISES, Noise, NoiseType, Normal
from ana_fx.schedule.schedule import AnnealingRange, Schedule

EPS = 2.0**-52  # of float64
INTERVALS = list(DecayInterval)
DEPTHS = [1, 2, 3, 7, 10]

fractions = st.floats(0.0, 1.0)
windows = st.tuples(fractions, fractions).map(sorted).filter(lambda window: window[1] - window[0] > 1e-3)


def ranges(interval, num_depths, *, start=0.0, stop=0.7):
    """The ranges of all depths."""
    schedule = Schedule(interval=interval, start=start, stop=stop)
    return [schedule.annealing_range(depth, num_depths) for depth in range(num_depths)]


def in_periods(interval, depth, num_depths):
    """Begin and end of the range, counted in periods (paper, section 3)."""
    return {
        DecayInterval.PARTITION: (depth, depth + 1),
        DecayInterval.SAME_START: (0, depth + 1),
        DecayInterval.SAME_END: (num_depths - depth - 1, num_depths),
        DecayInterval.OVERLAPPED: (0, num_depths),
    }[interval]


@pytest.mark.parametrize("num_depths", DEPTHS)
@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.7), (0.1, 1.0)])
@pytest.mark.parametrize("interval", INTERVALS)
def test_ranges_are_those_of_the_paper(interval, start, stop, num_depths):
    period = (stop - start) / num_depths
    for depth, found in enumerate(ranges(interval, num_depths, start=start, stop=stop)):
        begin, end = in_periods(interval, depth, num_depths)
        assert found.depth == depth
        # A product and a sum of numbers below 1, each rounded.
        assert found.start == pytest.approx(start + period * begin, abs=4 * EPS)
        assert found.end == pytest.approx(start + period * end, abs=4 * EPS)


@given(interval=st.sampled_from(INTERVALS), num_depths=st.integers(1, 200), window=windows)
def test_the_last_range_ends_exactly_at_the_stop(interval, num_depths, window):
    start, stop = window
    found = ranges(interval, num_depths, start=start, stop=stop)
    assert found[-1].end == stop
    assert min(r.start for r in found) == start


@given(interval=st.sampled_from(INTERVALS), num_depths=st.integers(1, 200), window=windows)
def test_no_layer_is_annealed_after_one_behind_it(interval, num_depths, window):
    found = ranges(interval, num_depths, start=window[0], stop=window[1])
    for first, second in pairwise(found):
        assert first.end <= second.end
        if interval is DecayInterval.PARTITION:
            assert first.end == second.start


@given(start=fractions, end=fractions, times=st.lists(fractions, min_size=2))
def test_what_remains_falls_from_one_to_zero(start, end, times):
    found = AnnealingRange(0, min(start, end), max(start, end))
    remaining = [found.remaining(time) for time in sorted(times)]
    assert remaining == sorted(remaining, reverse=True)
    assert all(0.0 <= value <= 1.0 for value in remaining)
    assert found.remaining(found.end) == found.remaining(1.0) == 0.0
    assert found.remaining(found.start) == float(found.start < found.end)


def test_what_remains_is_linear_in_time():
    found = AnnealingRange(0, 0.25, 0.75)
    assert [found.remaining(time / 8) for time in range(9)] == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("noise", NOISES.values())
def test_noise_starts_at_the_half_width_and_ends_at_nothing(noise):
    schedule = Schedule(noise=noise, mean="dynamic", half_width=0.25)
    timing = AnnealingRange(1, 0.2, 0.4)
    assert schedule.noise_at(0.0, timing, 3) == schedule.noise_at(0.2, timing, 3) == (-0.25, noise.std_of(0.25))
    assert schedule.noise_at(0.4, timing, 3) == schedule.noise_at(1.0, timing, 3) == (0.0, 0.0)


def test_a_dynamic_mean_starts_half_a_step_low_by_default():
    mean, _ = Schedule(mean="dynamic").noise_at(0.0, AnnealingRange(0, 0.0, 0.5), 1)
    assert mean == -0.5


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("power", DecayPower)
def test_the_mean_decays_with_the_power_and_the_deviation_with_twice_the_power(power, depth):
    schedule = Schedule(power=power, mean="dynamic")
    exponent = 4 - depth if power is DecayPower.PROGRESSIVE else 1
    for progress in (0.3, 0.5, 0.6, 0.75):
        mean, std = schedule.noise_at(progress, AnnealingRange(depth, 0.25, 0.8), 4)
        remaining = (0.8 - progress) / (0.8 - 0.25)
        assert mean == pytest.approx(-0.5 * remaining**exponent, rel=16 * EPS)
        assert std == pytest.approx(schedule.noise.std_of(0.5) * remaining ** (2 * exponent), rel=32 * EPS)


@given(progress=fractions)
def test_static_noise_is_the_straight_through_estimator_at_all_times(progress):
    schedule = Schedule(mean="static", variance="static")
    assert schedule.noise_at(progress, AnnealingRange(0, 0.0, 0.5), 1) == (0.0, schedule.noise.std_of(0.5))


@given(times=st.lists(fractions, min_size=2), power=st.sampled_from(list(DecayPower)), depth=st.integers(0, 9))
def test_noise_never_grows(times, power, depth):
    schedule, timing = Schedule(power=power, mean="dynamic"), AnnealingRange(depth, 0.1, 0.6)
    noise = [schedule.noise_at(time, timing, 10) for time in sorted(times)]
    assert [mean for mean, _ in noise] == sorted(mean for mean, _ in noise)
    assert [std for _, std in noise] == sorted((std for _, std in noise), reverse=True)


def test_strings_stand_for_the_members_of_enumerations():
    named = Schedule("normal", "random", "same_end", "progressive", "dynamic", "static")
    assert named == Schedule(
        Normal(), Strategy.RANDOM, DecayInterval.SAME_END, DecayPower.PROGRESSIVE, NoiseRule.DYNAMIC, NoiseRule.STATIC
    )
    assert all(
        isinstance(value, (Noise, Strategy, DecayInterval, DecayPower, NoiseRule))
        for value in list(vars(named).values())[:6]
    )


def test_a_schedule_of_an_older_version_is_read_with_the_names_that_it_has():
    older = {**vars(Schedule("normal")), "noise": NoiseType.NORMAL}
    del older["allows_disorder"]
    restored = Schedule.__new__(Schedule)
    restored.__setstate__(older)
    assert restored == Schedule("normal") == Schedule(NoiseType.NORMAL)


@pytest.mark.parametrize("field", ["noise", "strategy", "interval", "power", "mean", "variance"])
@pytest.mark.parametrize("value", ["unknown", "", None, 3, "UNIFORM"])
def test_unknown_members_are_refused_with_the_known_ones(field, value):
    with pytest.raises(ValueError, match=rf"unknown {field} {value!r}.*nown are '"):
        Schedule(**{field: value})


@pytest.mark.parametrize(("start", "stop"), [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.0, 1.1), (0.0, float("nan"))])
def test_a_window_outside_training_is_refused(start, stop):
    with pytest.raises(ValueError, match="fractions with start < stop"):
        Schedule(start=start, stop=stop)


@pytest.mark.parametrize("half_width", [0.0, -0.5, 4.5, float("inf"), float("nan")])
def test_a_width_that_is_none_is_refused(half_width):
    with pytest.raises(ValueError, match=r"half_width lies in \(0, 4\] steps"):
        Schedule(half_width=half_width)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.5), (float("nan"), 1.0)])
def test_a_range_outside_training_is_refused(start, end):
    with pytest.raises(ValueError, match="an annealing range lies in"):
        AnnealingRange(0, start, end)


def test_a_negative_depth_is_refused():
    with pytest.raises(ValueError, match="a depth is not negative, got -1"):
        AnnealingRange(-1, 0.0, 0.5)
