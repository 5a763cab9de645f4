"""The experimental design: its size, and each rule against what it says."""

from collections import Counter

import pytest

from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy
from ana_fx.schedule.noise import NOISES
from ana_fx.schedule.schedule import Schedule
from ana_fx.study import design_grid
from ana_fx.study.design_grid import CIFAR10_RULES, SPEECH_COMMANDS_RULES, all_schedules, reduced_schedules

BY_NAME = {rule.name: rule for rule in SPEECH_COMMANDS_RULES}


def key(schedule):
    """What a training sees of a schedule: noise of three depths over time, and the strategy."""
    ranges = [schedule.annealing_range(depth, 3) for depth in range(3)]
    noise = tuple(schedule.noise_at(time / 16, each, 3) for each in ranges for time in range(17))
    return schedule.noise, schedule.strategy, noise


def test_the_design_has_384_different_combinations():
    found = all_schedules()
    assert len(found) == len(set(found)) == 4 * 2 * 2 * 4 * 2 * 3 == 384


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("noise", NOISES.values()),
        ("strategy", Strategy),
        ("interval", DecayInterval),
        ("power", DecayPower),
        ("mean", NoiseRule),
        ("variance", NoiseRule),
    ],
)
def test_the_design_is_balanced(field, kind):
    counts = Counter(getattr(schedule, field) for schedule in all_schedules())
    assert counts == {member: 384 // len(kind) for member in kind}


def test_the_rules_leave_as_many_as_the_paper_counts():
    per_noise_type = 2 + 3 * 3 * 8 - 8  # static without expectation; dynamic without expectation under static variance
    assert len(reduced_schedules()) == 4 * per_noise_type == 264
    assert len(reduced_schedules()) == 384 - (96 - 12) - 32 - 4  # section 4.1
    assert len(reduced_schedules(SPEECH_COMMANDS_RULES)) == 4 * 2 + 4 * 2 * 3 == 32  # appendix B


def test_reduced_is_the_default_of_what_can_be_chosen():
    assert reduced_schedules() == reduced_schedules(CIFAR10_RULES)
    assert reduced_schedules(()) == all_schedules()
    assert set(reduced_schedules(SPEECH_COMMANDS_RULES)) < set(reduced_schedules()) < set(all_schedules())


def test_static_schedules_left_out_equal_one_that_is_not():
    rule = BY_NAME["static-has-no-time"]
    kept = {key(schedule) for schedule in all_schedules() if not rule.excludes(schedule)}
    excluded = [schedule for schedule in all_schedules() if rule.excludes(schedule)]
    assert len(excluded) == 4 * 3 * 7
    assert all(key(schedule) in kept for schedule in excluded)


def test_no_two_schedules_of_the_reduced_design_are_one():
    assert len({key(schedule) for schedule in reduced_schedules()}) == 264


def test_an_expectation_left_out_is_noisy_to_the_end_and_no_other_is():
    rule = BY_NAME["expectation-needs-an-end"]
    for schedule in all_schedules():
        std = schedule.noise_at(1.0, schedule.annealing_range(0, 1), 1)[1]
        assert rule.excludes(schedule) == (schedule.strategy is Strategy.EXPECTATION and std > 0)


def test_rules_say_why():
    assert all(len(rule.reason) > 20 for rule in BY_NAME.values())
    assert not BY_NAME["mean-stays"].excludes(Schedule())
    assert BY_NAME["mean-stays"].excludes(Schedule(mean="dynamic"))
    assert set(design_grid.__all__) <= set(vars(design_grid))
