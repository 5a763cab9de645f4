"""When and how the noise of each layer map is annealed: the degrees of freedom of the ANA paper.

Spallanzani et al. 2022, sections 2.3, 3 and 4.1. Times are fractions of the whole training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ana_fx.schedule.annealing_range import AnnealingRange, LayerSchedule, check_constants
from ana_fx.schedule.degrees import (
    DecayInterval,
    DecayPower,
    DepthRule,
    Gradient,
    GradientRule,
    NoiseRule,
    Strategy,
    member,
)
from ana_fx.schedule.noise import NOISES, Noise, noise_called
from ana_fx.schedule.noise_constants import NoiseConstants
from ana_fx.schedule.own_schedule import LayerPosition, ScheduleFunction, noise_given, span_given
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
            dynamic. A static mean moves the thresholds for good, of the deployed quantizer too. Noise is subtracted
            (paper, Proposition 1); where the paper adds it (section 2.4) its c_α has the other sign.
        mean_power: d_α, the power with which the mean decays.
        std_power: d_β, the power with which the standard deviation decays.
        depth_overrides: What the layer maps of a depth do otherwise. A mapping; kept as pairs, so that
            a schedule can be hashed.
        overrides: The same for module paths that match a pattern, or lie inside a module that is named; the last
            match counts, and wins over the depth's.
        depth: What a depth counts: "weights", by which a sum, a pool or a table shares the range of what feeds it, or
            "layer_maps", by which it has one of its own and leaves less of the annealing to the layers that can learn.
        allows_disorder: Whether overrides may break the order in which the graph says that noise vanishes.
        function: A schedule of your own, S(ℓ, t) of the paper's Algorithm 1. Called with a `LayerPosition` (path,
            depth, num_depths) and a fraction of training, it returns mean and half-width of the noise in steps: the
            mean counted from the thresholds of the deployed quantizer, the half-width at most `half_width`, and both
            the same whenever it is asked. It alone says when and how noise decays; what else would is refused.
        gradient: Of which function the backward pass takes the derivative: the expectation, or the improper ReLU
            (see `GradientRule`).
        gradient_mean: By how many steps the thresholds of that function lie above those of the forward pass: 0.5 is
            the clipped ReLU. Another gradient than the usual one needs the strategy `mode`, whose forward pass is the
            quantizer; the other strategies compute with the noise there too.

    Strings are accepted for the enumerations. Raises ValueError on anything else.

    Examples:
        >>> import math
        >>> def cosine(layer, time):
        ...     end = 0.7 * (layer.depth + 1) / layer.num_depths
        ...     return 0.0, 0.25 * (1 + math.cos(math.pi * min(time / end, 1)))
        >>> Schedule("triangular", function=cosine).noise_at(0.35, AnnealingRange(0, 0.0, 0.35, path="conv"), 2)
        (0.0, 0.0)
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
    function: ScheduleFunction | None
    gradient: GradientRule
    gradient_mean: float
    depth: DepthRule

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
        function: ScheduleFunction | None = None,
        gradient: GradientRule | str = GradientRule.EXPECTATION,
        gradient_mean: float = 0.0,
        depth: DepthRule | str = DepthRule.WEIGHTS,
    ) -> None:
        check_constants(half_width, mean_constant, mean_power, std_power, gradient_mean)
        if not 0.0 <= start < stop <= 1.0:
            raise ValueError(f"start and stop are fractions with start < stop, got {start} and {stop}")
        values: dict[str, object] = {
            "noise": noise_called(noise),
            "strategy": member(Strategy, "strategy", strategy),
            "interval": member(DecayInterval, "interval", interval),
            "power": member(DecayPower, "power", power),
            "mean": member(NoiseRule, "mean", mean),
            "variance": member(NoiseRule, "variance", variance),
            "gradient": member(GradientRule, "gradient", gradient),
            "depth": member(DepthRule, "depth", depth),
            "depth_overrides": _pairs(int, depth_overrides),
            "overrides": _pairs(str, overrides),
        }
        values |= {"half_width": half_width, "start": start, "stop": stop, "learn_scales": learn_scales}
        values |= {"mean_constant": mean_constant, "mean_power": mean_power, "std_power": std_power}
        values |= {"allows_disorder": allows_disorder, "function": function, "gradient_mean": gradient_mean}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if function is not None:
            _check_alone(self)
        _check_gradient(self.constants())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a copy or a pickle, of an older version too, whose noise was a name."""
        self.__init__(**state)  # type: ignore[misc]  # it checks what it is given

    @property
    def is_static(self) -> bool:
        """Whether the noise of no layer ever changes, so that all layers learn to the end."""
        owns = [own for _, own in (*self.depth_overrides, *self.overrides)]
        rules = {self.mean, self.variance, *(rule for own in owns for rule in (own.mean, own.variance))}
        return self.function is None and NoiseRule.DYNAMIC not in rules

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
            TypeError: The schedule is a function that gives no pair of numbers.
            ValueError: An override starts after the end or asks for a gradient that its strategy cannot have, or such
                a function gives numbers that are out of range.
        """
        own = self.override(depth, path)
        _check_gradient(self.constants(AnnealingRange(depth, 0.0, 0.0, own)))
        if self.function is not None:
            layer = LayerPosition(path or "", depth, num_depths)
            return AnnealingRange(depth, *span_given(self.function, layer, self.half_width), own, layer.path)
        period = (self.stop - self.start) / num_depths

        def time(periods: int) -> float:
            return self.stop if periods == num_depths else self.start + period * periods

        begin, end = self.interval.periods(depth, num_depths)
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
        if self.function is not None:
            layer = LayerPosition(annealing_range.path or "", annealing_range.depth, num_depths)
            mean, half_width = noise_given(self.function, layer, progress, self.half_width)
            return mean, own.noise.std_of(half_width)
        remaining = annealing_range.remaining(progress)
        factor = self.power.factor(annealing_range.depth, num_depths)
        mean = own.mean * remaining ** (own.mean_power * factor) if own.mean_rule is NoiseRule.DYNAMIC else 0.0
        std = own.noise.std_of(own.half_width) * own.std_rule.share(remaining, own.std_power * factor)
        return mean, std

    def constants(self, annealing_range: AnnealingRange | None = None) -> NoiseConstants:
        """What the noise of a layer map is, overrides included; None is a layer map without any."""
        own = _NO_OVERRIDE if annealing_range is None else annealing_range.override or _NO_OVERRIDE
        mean_rule, std_rule = _or(own.mean, self.mean), _or(own.variance, self.variance)
        if self.function is not None:
            mean_rule = std_rule = NoiseRule.DYNAMIC
        half_width = _or(own.half_width, self.half_width)
        mean = _or(own.mean_constant, self.mean_constant)
        if mean is None:
            mean = -half_width if mean_rule is NoiseRule.DYNAMIC else 0.0
        return NoiseConstants(
            half_width,
            mean,
            _or(own.mean_power, self.mean_power),
            _or(own.std_power, self.std_power),
            _or(own.noise, self.noise),
            _or(own.strategy, self.strategy),
            mean_rule,
            std_rule,
            Gradient(_or(own.gradient, self.gradient), _or(own.gradient_mean, self.gradient_mean)),
        )

    def never_vanishes(self, annealing_range: AnnealingRange, num_depths: int) -> bool:
        """Whether a layer map has noise at the end of training, whatever its range."""
        return self.noise_at(1.0, annealing_range, num_depths) != (0.0, 0.0)

    def threshold_shift(self, annealing_range: AnnealingRange) -> float:
        """By how many steps a static mean moves the thresholds of a layer map, upwards."""
        return self.constants(annealing_range).threshold_shift


_NO_OVERRIDE = LayerSchedule()
_TIMED = ("interval", "power", "mean", "variance", "start", "stop", "mean_constant", "mean_power", "std_power")


def _or(own: Any, usual: Any) -> Any:
    """What an override says, whose names have become members, or what is usual."""
    return usual if own is None else own


def _check_gradient(constants: NoiseConstants) -> None:
    if constants.gradient != Gradient() and constants.strategy is not Strategy.MODE:
        raise ValueError(
            f"the {constants.gradient} needs strategy 'mode', whose forward pass is the quantizer; found strategy "
            f"{constants.strategy.value!r}"
        )


def _check_alone(schedule: Schedule) -> None:
    """A function says when and how noise decays; nothing else does."""
    if not callable(schedule.function):
        raise TypeError(f"function is called with a layer and a time, got {brief(schedule.function)}")
    usual = Schedule()
    said = [name for name in _TIMED if getattr(schedule, name) != getattr(usual, name)]
    said += [
        f"{name} of {key!r}" for key, own in (*schedule.depth_overrides, *schedule.overrides) for name in own.says_when
    ]
    if said:
        raise ValueError(f"function says when and how noise decays, so nothing else may; found {', '.join(said)}")


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
