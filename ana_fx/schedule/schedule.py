"""When and how the noise of each layer map is annealed: the degrees of freedom of the ANA paper.

Spallanzani et al. 2022, sections 2.3, 3 and 4.1. Times are fractions of the whole training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ana_fx.schedule.annealing_range import AnnealingRange, LayerSchedule, check_constants
from ana_fx.schedule.degrees import DecayInterval, DecayPower, NoiseRule, Strategy, member
from ana_fx.schedule.noise import NOISES, Noise, noise_called
from ana_fx.text.patterns import matches
from ana_fx.text.wording import brief

__all__ = [
    "AnnealingRange",
    "DecayInterval",
    "DecayPower",
    "LayerSchedule",
    "NoiseConstants",
    "NoiseRule",
    "Schedule",
    "Strategy",
]


class NoiseConstants(NamedTuple):
    """What the noise of a layer map starts from, in steps, and how fast it decays."""

    half_width: float
    mean: float
    mean_power: float
    std_power: float


@dataclass(frozen=True)
class Schedule:
    """How noise is shaped and annealed.

    Args:
        noise: Family of the noise: uniform, triangular, normal or logistic, or a `Noise` of your own.
        strategy: Forward pass of a noisy quantizer: expectation, mode or random.
        interval: How the depths share the annealing time. `same_end` breaks the compositional order.
        power: Homogeneous or progressive decay.
        mean: Static (constant) or dynamic (to zero).
        variance: Static (constant) or dynamic (to zero).
        half_width: Half-width of the initial noise, in steps of the quantizer. Unbounded families
            are as wide as the interval that holds 95 % of their mass.
        start: Fraction of training at which annealing begins.
        stop: Fraction of training at which the last layer's noise is gone.
        learn_scales: Whether the steps of weights and activations are trained.
        mean_constant: c_α, the initial mean in steps; None is 0 if static and minus the half-width if
            dynamic. A static mean moves the thresholds for good, of the deployed quantizer too.
        mean_power: d_α, the power with which the mean decays.
        std_power: d_β, the power with which the standard deviation decays.
        depth_overrides: What the layer maps of a depth do otherwise. A mapping; kept as pairs, so that
            a schedule can be hashed.
        overrides: The same for module paths that match a pattern, or lie inside a module that is named; the last
            match counts, and wins over the depth's.
        allows_disorder: Whether overrides may break the order in which the graph says that noise vanishes.

    Strings are accepted for the enumerations. Raises ValueError on anything else.
    """

    noise: Noise
    strategy: Strategy
    interval: DecayInterval
    power: DecayPower
    mean: NoiseRule
    variance: NoiseRule
    half_width: float
    start: float
    stop: float
    learn_scales: bool
    mean_constant: float | None
    mean_power: float
    std_power: float
    depth_overrides: tuple[tuple[int, LayerSchedule], ...]
    overrides: tuple[tuple[str, LayerSchedule], ...]
    allows_disorder: bool

    def __init__(
        self,
        noise: Noise | str = NOISES["uniform"],
        strategy: Strategy | str = Strategy.MODE,
        interval: DecayInterval | str = DecayInterval.PARTITION,
        power: DecayPower | str = DecayPower.HOMOGENEOUS,
        mean: NoiseRule | str = NoiseRule.STATIC,
        variance: NoiseRule | str = NoiseRule.DYNAMIC,
        *,
        half_width: float = 0.5,
        start: float = 0.0,
        stop: float = 0.7,
        learn_scales: bool = False,
        mean_constant: float | None = None,
        mean_power: float = 1.0,
        std_power: float = 2.0,
        depth_overrides: Mapping[int, LayerSchedule] | Iterable[tuple[int, LayerSchedule]] = (),
        overrides: Mapping[str, LayerSchedule] | Iterable[tuple[str, LayerSchedule]] = (),
        allows_disorder: bool = False,
    ) -> None:
        check_constants(half_width, mean_constant, mean_power, std_power)
        if not 0.0 <= start < stop <= 1.0:
            raise ValueError(f"start and stop are fractions with start < stop, got {start} and {stop}")
        values: dict[str, object] = {
            "noise": noise_called(noise),
            "strategy": member(Strategy, "strategy", strategy),
            "interval": member(DecayInterval, "interval", interval),
            "power": member(DecayPower, "power", power),
            "mean": member(NoiseRule, "mean", mean),
            "variance": member(NoiseRule, "variance", variance),
            "depth_overrides": _pairs(int, depth_overrides),
            "overrides": _pairs(str, overrides),
        }
        values |= {"half_width": half_width, "start": start, "stop": stop, "learn_scales": learn_scales}
        values |= {"mean_constant": mean_constant, "mean_power": mean_power, "std_power": std_power}
        values |= {"allows_disorder": allows_disorder}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a copy or a pickle, of an older version too, whose noise was a name."""
        self.__init__(**state)  # type: ignore[misc]  # it checks what it is given

    @property
    def is_static(self) -> bool:
        """Whether its noise never changes, so that all layers learn to the end."""
        return self.mean is NoiseRule.STATIC and self.variance is NoiseRule.STATIC

    def override(self, depth: int, path: str | None = None) -> LayerSchedule | None:
        """What the layer map at a module path and a depth does otherwise, or None."""
        own = dict(self.depth_overrides).get(depth)
        for pattern, layer_schedule in reversed(self.overrides):
            if path is not None and matches(path, pattern):
                return layer_schedule if own is None else layer_schedule.over(own)
        return own

    def annealing_range(self, depth: int, num_depths: int, path: str | None = None) -> AnnealingRange:
        """The range of the layer map of a path at `depth`, out of `num_depths` depths (paper, section 4.1).

        Raises:
            ValueError: An override starts after the end.
        """
        period = (self.stop - self.start) / num_depths

        def time(periods: int) -> float:
            return self.stop if periods == num_depths else self.start + period * periods

        begin, end = self.interval.periods(depth, num_depths)
        own = self.override(depth, path)
        if own is None:
            return AnnealingRange(depth, time(begin), time(end))
        first = time(begin) if own.start is None else own.start
        last = time(end) if own.end is None else own.end
        return AnnealingRange(depth, first, last, own)

    def noise_at(self, progress: float, annealing_range: AnnealingRange, num_depths: int) -> tuple[float, float]:
        """Mean α and standard deviation β at a time, in steps: α = c_α·λ^(d_α·p), β = c_β·λ^(d_β·p).

        The mean is counted from the thresholds of the deployed quantizer; a static one is part of these
        (see `threshold_shift`) and 0 here.
        """
        own = self.constants(annealing_range)
        remaining = annealing_range.remaining(progress)
        factor = self.power.factor(annealing_range.depth, num_depths)
        mean = own.mean * remaining ** (own.mean_power * factor) if self.mean is NoiseRule.DYNAMIC else 0.0
        std = self.noise.std_of(own.half_width) * self.variance.share(remaining, own.std_power * factor)
        return mean, std

    def constants(self, annealing_range: AnnealingRange) -> NoiseConstants:
        """The constants of a layer map's noise, overrides included."""
        own = annealing_range.override or LayerSchedule()
        half_width = self.half_width if own.half_width is None else own.half_width
        mean = self.mean_constant if own.mean_constant is None else own.mean_constant
        if mean is None:
            mean = -half_width if self.mean is NoiseRule.DYNAMIC else 0.0
        mean_power = self.mean_power if own.mean_power is None else own.mean_power
        std_power = self.std_power if own.std_power is None else own.std_power
        return NoiseConstants(half_width, mean, mean_power, std_power)

    def threshold_shift(self, annealing_range: AnnealingRange) -> float:
        """By how many steps a static mean moves the thresholds of a layer map, upwards."""
        return 0.0 if self.mean is NoiseRule.DYNAMIC else self.constants(annealing_range).mean


def _pairs(kind: type, overrides: Any) -> tuple[tuple[Any, LayerSchedule], ...]:
    pairs = tuple(overrides.items() if isinstance(overrides, Mapping) else overrides)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"overrides are a mapping from {kind.__name__} to LayerSchedule, got {brief(overrides)}")
    for key, value in pairs:
        if not isinstance(key, kind) or not isinstance(value, LayerSchedule):
            raise TypeError(f"an override maps {kind.__name__} to LayerSchedule, got {brief(key)}: {brief(value)}")
        if isinstance(key, int) and key < 0:
            raise ValueError(f"a depth is not negative, got {key}")
    return pairs
