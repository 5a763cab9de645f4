"""When the noise of one layer map is annealed, and what is special about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from types import MappingProxyType

from ana_fx.schedule.degrees import GradientRule, NoiseRule, Strategy, member
from ana_fx.schedule.noise import Noise, noise_called

__all__ = ["AnnealingRange", "LayerSchedule", "check_constants"]

_WIDEST = 4.0  # steps
_STEEPEST = 16.0
_KINDS: Mapping[str, type[Enum]] = MappingProxyType(
    {"strategy": Strategy, "mean": NoiseRule, "variance": NoiseRule, "gradient": GradientRule}
)


@dataclass(frozen=True)
class LayerSchedule:
    """What one layer map, or all of one depth, does otherwise than its schedule; None: as the schedule says.

    Args:
        start: Fraction of training at which its noise begins to decay.
        end: Fraction of training at which its noise is gone.
        half_width: Half-width of its initial noise, in steps.
        mean_constant: c_α, in steps. A static one moves the thresholds; the scales are found without it.
        mean_power: d_α, before it is multiplied for `progressive`.
        std_power: d_β, likewise.
        noise: Family of its noise, or the name of one.
        strategy: What it computes in the forward pass.
        mean: Whether its mean stays or decays.
        variance: Whether its variance stays or decays.
        gradient: Of which function its gradient is the derivative.
        gradient_mean: By how many steps the thresholds of that function lie above those of the forward pass.

    Raises:
        ValueError: A number is out of its range, or a name unknown.
    """

    start: float | None = None
    end: float | None = None
    half_width: float | None = None
    mean_constant: float | None = None
    mean_power: float | None = None
    std_power: float | None = None
    noise: Noise | str | None = None
    strategy: Strategy | str | None = None
    mean: NoiseRule | str | None = None
    variance: NoiseRule | str | None = None
    gradient: GradientRule | str | None = None
    gradient_mean: float | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, member(kind, name, getattr(self, name)))
        if self.noise is not None:
            object.__setattr__(self, "noise", noise_called(self.noise))
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is a fraction of training, got {value}")
        check_constants(self.half_width, self.mean_constant, self.mean_power, self.std_power, self.gradient_mean)

    @property
    def is_timed(self) -> bool:
        """Whether it moves the annealing range, or says whether there is anything to anneal."""
        return any(each is not None for each in (self.start, self.end, self.mean, self.variance))

    @property
    def says_when(self) -> tuple[str, ...]:
        """What it says of the noise over time, which a schedule of the user's own says alone."""
        timed = ("start", "end", "half_width", "mean_constant", "mean_power", "std_power", "mean", "variance")
        return tuple(name for name in timed if getattr(self, name) is not None)

    def over(self, other: LayerSchedule) -> LayerSchedule:
        """This, and `other` where this says nothing."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return LayerSchedule(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


@dataclass(frozen=True)
class AnnealingRange:
    """The part of training, as fractions of it, in which a layer map's noise decays.

    Holds: depth >= 0 and 0 <= start <= end <= 1. `override` is what the layer map does otherwise
    than its schedule, or None; `path` the module path, where the schedule is a function that asks for it.
    """

    depth: int
    start: float
    end: float
    override: LayerSchedule | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"a depth is not negative, got {self.depth}")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(f"an annealing range lies in [0, 1], got [{self.start}, {self.end}]")

    def remaining(self, progress: float) -> float:
        """λ: 1 up to the start, 0 from the end on, linear in between (paper, eqs. 20 and 21)."""
        if progress >= self.end:
            return 0.0
        if progress <= self.start:
            return 1.0
        return (self.end - progress) / (self.end - self.start)


def check_constants(
    half_width: float | None,
    mean_constant: float | None,
    mean_power: float | None,
    std_power: float | None,
    gradient_mean: float | None,
) -> None:
    """Raise ValueError for a constant of the noise that is out of its range; None is in every range."""
    if half_width is not None and not 0.0 < half_width <= _WIDEST:
        raise ValueError(f"half_width lies in (0, {_WIDEST:g}] steps, got {half_width}")
    for name, mean in (("mean_constant", mean_constant), ("gradient_mean", gradient_mean)):
        if mean is not None and not abs(mean) <= _WIDEST:
            raise ValueError(f"{name} lies in [-{_WIDEST:g}, {_WIDEST:g}] steps, got {mean}")
    for name, power in (("mean_power", mean_power), ("std_power", std_power)):
        if power is not None and not 0.0 < power <= _STEEPEST:
            raise ValueError(f"{name} lies in (0, {_STEEPEST:g}], got {power}")
