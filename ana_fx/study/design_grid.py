"""The experimental design of the ANA paper: every combination of its degrees of freedom, and which are worth a run.

The paper crosses 4 noise types, 2 means, 2 variances, 4 decay intervals, 2 powers and 3 strategies: 384 combinations
(section 4.1). Of the 96 static ones it keeps 12, then leaves out the expectation under a static variance, 32 dynamic
combinations and 4 static ones: 264 for CIFAR-10. For SVHN and Google Speech Commands (appendix B) it looks at static
schedules of every noise type, and at dynamic ones of uniform noise with a static mean: 8 + 24 = 32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy
from ana_fx.schedule.noise import NoiseType
from ana_fx.schedule.schedule import Schedule

__all__ = ["CIFAR10_RULES", "SPEECH_COMMANDS_RULES", "ExclusionRule", "all_schedules", "reduced_schedules"]


@dataclass(frozen=True)
class ExclusionRule:
    """Why some schedules of the design need no run.

    Args:
        name: What the rule is called.
        reason: Why it leaves schedules out.
        excludes: Whether it leaves out a given one.
    """

    name: str
    reason: str
    excludes: Callable[[Schedule], bool]


def all_schedules() -> tuple[Schedule, ...]:
    """The 384 combinations, noise type by noise type; all else as in `Schedule`.

    Examples:
        >>> len(all_schedules())
        384
    """
    combinations = itertools.product(NoiseType, Strategy, DecayInterval, DecayPower, NoiseRule, NoiseRule)
    return tuple(Schedule(*combination) for combination in combinations)


def reduced_schedules(rules: Iterable[ExclusionRule] | None = None) -> tuple[Schedule, ...]:
    """The combinations that no rule excludes.

    Args:
        rules: None is `CIFAR10_RULES`.

    Examples:
        >>> len(reduced_schedules()), len(reduced_schedules(SPEECH_COMMANDS_RULES))
        (264, 32)
    """
    rules = CIFAR10_RULES if rules is None else tuple(rules)
    return tuple(each for each in all_schedules() if not any(rule.excludes(each) for rule in rules))


def _is_duplicate(schedule: Schedule) -> bool:
    is_first = schedule.interval is DecayInterval.OVERLAPPED and schedule.power is DecayPower.HOMOGENEOUS
    return schedule.is_static and not is_first


def _never_quantizes(schedule: Schedule) -> bool:
    return schedule.variance is NoiseRule.STATIC and schedule.strategy is Strategy.EXPECTATION


def _moves_the_mean(schedule: Schedule) -> bool:
    return schedule.mean is NoiseRule.DYNAMIC


def _has_dynamic_noise_of_another_type(schedule: Schedule) -> bool:
    return not schedule.is_static and schedule.noise != NoiseType.UNIFORM.noise


_STATIC_HAS_NO_TIME = ExclusionRule(
    "static-has-no-time",
    "with a static mean and a static variance nothing decays, so interval and power change nothing: one of the eight, "
    "overlapped and homogeneous, stands for all",
    _is_duplicate,
)
_EXPECTATION_NEEDS_AN_END = ExclusionRule(
    "expectation-needs-an-end",
    "the expectation under noise that never vanishes is never the quantizer, so the network that is trained is not "
    "the one that is deployed",
    _never_quantizes,
)
_MEAN_STAYS = ExclusionRule(
    "mean-stays",
    "the other data sets look only at static STEs and at schedules with a static mean and a dynamic variance",
    _moves_the_mean,
)
_DYNAMIC_NOISE_IS_UNIFORM = ExclusionRule(
    "dynamic-noise-is-uniform",
    "on CIFAR-10 the noise type hardly mattered, so the other data sets compare types with static schedules only",
    _has_dynamic_noise_of_another_type,
)

CIFAR10_RULES = (_STATIC_HAS_NO_TIME, _EXPECTATION_NEEDS_AN_END)
SPEECH_COMMANDS_RULES = (*CIFAR10_RULES, _MEAN_STAYS, _DYNAMIC_NOISE_IS_UNIFORM)
