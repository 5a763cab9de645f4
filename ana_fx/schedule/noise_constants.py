"""The noise of one layer map, once a schedule and what overrides it are put together."""

from __future__ import annotations

from typing import NamedTuple

from ana_fx.schedule.degrees import Gradient, NoiseRule, Strategy
from ana_fx.schedule.noise import Noise

__all__ = ["NoiseConstants"]


class NoiseConstants(NamedTuple):
    """What the noise of a layer map is, what it starts from, in steps, and how fast it decays."""

    half_width: float
    mean: float
    mean_power: float
    std_power: float
    noise: Noise
    strategy: Strategy
    mean_rule: NoiseRule
    std_rule: NoiseRule
    gradient: Gradient

    @property
    def is_static(self) -> bool:
        """Whether the noise never changes."""
        return self.mean_rule is NoiseRule.STATIC and self.std_rule is NoiseRule.STATIC

    @property
    def threshold_shift(self) -> float:
        """By how many steps a static mean moves the thresholds, upwards."""
        return self.mean if self.mean_rule is NoiseRule.STATIC else 0.0

    @property
    def num_neighbours(self) -> int:
        """How many thresholds on either side of the nearest one the noise reaches."""
        return self.noise.num_neighbours(self.half_width)
