"""The choices between names: what follows from each, and how they were called before."""

from itertools import pairwise

import pytest

import ana_fx
from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy


def test_only_the_expectation_is_no_level():
    assert [each for each in Strategy if not each.gives_levels] == [Strategy.EXPECTATION]


@pytest.mark.parametrize("interval", DecayInterval)
@pytest.mark.parametrize("num_depths", [1, 2, 5])
def test_an_interval_is_ordered_or_disjoint_if_its_periods_are(interval, num_depths):
    periods = [interval.periods(depth, num_depths) for depth in range(num_depths)]
    assert all(0 <= begin < end <= num_depths for begin, end in periods)
    if num_depths > 1:
        assert interval.is_ordered is (periods == sorted(periods))
        assert interval.is_disjoint is all(first[1] <= second[0] for first, second in pairwise(periods))


@pytest.mark.parametrize("depth", range(4))
def test_progressive_powers_are_larger_nearer_the_input(depth):
    assert DecayPower.PROGRESSIVE.factor(depth, 4) == 4 - depth
    assert DecayPower.HOMOGENEOUS.factor(depth, 4) == 1


def test_static_parameters_keep_all_and_dynamic_ones_a_power_of_what_remains():
    assert [rule.share(0.25, 2.0) for rule in (NoiseRule.STATIC, NoiseRule.DYNAMIC)] == [1.0, 0.0625]
    assert [rule.share(0.0, 2.0) for rule in (NoiseRule.STATIC, NoiseRule.DYNAMIC)] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("old", "new"), [("Rule", NoiseRule), ("Power", DecayPower), ("Interval", DecayInterval)], ids=str
)
def test_an_old_name_goes_on_working_with_a_warning(old, new):
    with pytest.warns(
        DeprecationWarning, match=rf"ana_fx\.{old} goes in the next version; write ana_fx\.{new.__name__}"
    ):
        assert getattr(ana_fx, old) is new
    assert old not in dir(ana_fx)
    assert new.__name__ in ana_fx.__all__
