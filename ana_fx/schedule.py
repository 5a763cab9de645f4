"""When and how the noise of each layer map is annealed: the degrees of freedom of the ANA paper.

Spallanzani et al. 2022, sections 2.3, 3 and 4.1. Times are fractions of the whole training.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ana_fx.noise import NoiseType

__all__ = ["AnnealingRange", "Interval", "Power", "Rule", "Schedule", "Strategy"]


class Strategy(str, Enum):
    """What a noisy quantizer computes in the forward pass; the backward pass is the same for all."""

    EXPECTATION = "expectation"
    MODE = "mode"
    RANDOM = "random"


class Interval(str, Enum):
    """How the annealing ranges of the depths divide the annealing time."""

    PARTITION = "partition"
    SAME_START = "same_start"
    SAME_END = "same_end"
    OVERLAPPED = "overlapped"


class Power(str, Enum):
    """The decay's power: the same at every depth, or larger for layers nearer the input."""

    HOMOGENEOUS = "homogeneous"
    PROGRESSIVE = "progressive"


class Rule(str, Enum):
    """Whether a noise parameter stays where it starts or decays to zero."""

    STATIC = "static"
    DYNAMIC = "dynamic"


@dataclass(frozen=True)
class AnnealingRange:
    """The part of training, as fractions of it, in which a layer map's noise decays.

    Holds: depth >= 0 and 0 <= start <= end <= 1.
    """

    depth: int
    start: float
    end: float

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"a depth is not negative, got {self.depth}")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(f"an annealing range lies in [0, 1], got [{self.start}, {self.end}]")

    def remaining(self, progress: float) -> float:
        """λ: 1 up to the start, 0 from the end on, linear in between (paper, eq. 28)."""
        if progress >= self.end:
            return 0.0
        if progress <= self.start:
            return 1.0
        return (self.end - progress) / (self.end - self.start)


@dataclass(frozen=True)
class Schedule:
    """How noise is shaped and annealed.

    Args:
        noise: Family of the noise: uniform, triangular, normal or logistic.
        strategy: Forward pass of a noisy quantizer: expectation, mode or random.
        interval: How the depths share the annealing time.
        power: Homogeneous or progressive decay.
        mean: Static (zero) or dynamic (from minus the half-width to zero).
        variance: Static (constant) or dynamic (to zero).
        half_width: Half-width of the initial noise, in steps of the quantizer. Unbounded families
            are as wide as the interval that holds 95 % of their mass.
        start: Fraction of training at which annealing begins.
        stop: Fraction of training at which the last layer's noise is gone.
        learn_scales: Whether the steps of weights and activations are trained.

    Strings are accepted for the enumerations. Raises ValueError on anything else.
    """

    noise: NoiseType
    strategy: Strategy
    interval: Interval
    power: Power
    mean: Rule
    variance: Rule
    half_width: float
    start: float
    stop: float
    learn_scales: bool

    def __init__(
        self,
        noise: NoiseType | str = NoiseType.UNIFORM,
        strategy: Strategy | str = Strategy.MODE,
        interval: Interval | str = Interval.PARTITION,
        power: Power | str = Power.HOMOGENEOUS,
        mean: Rule | str = Rule.STATIC,
        variance: Rule | str = Rule.DYNAMIC,
        *,
        half_width: float = 0.5,
        start: float = 0.0,
        stop: float = 0.7,
        learn_scales: bool = False,
    ) -> None:
        if not 0.0 < half_width <= 4.0:
            raise ValueError(f"half_width lies in (0, 4] steps, got {half_width}")
        if not 0.0 <= start < stop <= 1.0:
            raise ValueError(f"start and stop are fractions with start < stop, got {start} and {stop}")
        values = {
            "noise": _member(NoiseType, "noise", noise),
            "strategy": _member(Strategy, "strategy", strategy),
            "interval": _member(Interval, "interval", interval),
            "power": _member(Power, "power", power),
            "mean": _member(Rule, "mean", mean),
            "variance": _member(Rule, "variance", variance),
            "half_width": half_width,
            "start": start,
            "stop": stop,
            "learn_scales": learn_scales,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def annealing_range(self, depth: int, num_depths: int) -> AnnealingRange:
        """The range of the layer maps at `depth`, out of `num_depths` depths (paper, section 3)."""
        period = (self.stop - self.start) / num_depths

        def time(periods: int) -> float:
            return self.stop if periods == num_depths else self.start + period * periods

        begin, end = {
            Interval.PARTITION: (depth, depth + 1),
            Interval.SAME_START: (0, depth + 1),
            Interval.SAME_END: (num_depths - depth - 1, num_depths),
            Interval.OVERLAPPED: (0, num_depths),
        }[self.interval]
        return AnnealingRange(depth, time(begin), time(end))

    def noise_at(self, progress: float, annealing_range: AnnealingRange, num_depths: int) -> tuple[float, float]:
        """Mean α and standard deviation β at a time, in steps: α = c_α·λ^p, β = c_β·λ^2p."""
        power = num_depths - annealing_range.depth if self.power is Power.PROGRESSIVE else 1
        remaining = annealing_range.remaining(progress)
        mean = -self.half_width * remaining**power if self.mean is Rule.DYNAMIC else 0.0
        std = self.noise.std_of(self.half_width)
        if self.variance is Rule.DYNAMIC:
            std *= remaining ** (2 * power)
        return mean, std


def _member(kind: type[Enum], field: str, value: object) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise ValueError(f"{field} is one of {known}, got {value!r}") from None
