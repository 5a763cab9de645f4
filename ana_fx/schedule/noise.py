"""The noise families of additive noise annealing, in units of their standard deviation.

Spallanzani et al., "Training Quantised Neural Networks with STE Variants: the Additive Noise
Annealing Algorithm", CVPR Workshops 2022, sections 2.1 to 2.3 and 4.1.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ana_fx.text.wording import unknown

__all__ = ["NOISES", "Logistic", "Noise", "NoiseType", "Normal", "Triangular", "Uniform", "noise_called"]

_SQRT3 = math.sqrt(3.0)
_SQRT3_INCLUDED = _SQRT3 * (1.0 + 2.0**-20)  # so that rounding leaves no hole between two bins
_SQRT6 = math.sqrt(6.0)
_LOGISTIC_UNIT = _SQRT3 / math.pi  # the scale of a logistic with standard deviation 1
_SMALLEST = 2.0**-60  # what no division by it makes infinite
_ROUNDING = 1e-9  # a reach of half a step, but for rounding, is one


@dataclass(frozen=True)
class Noise(ABC):
    """A family of distributions with mean 0 and standard deviation 1, as wide as a schedule says.

    Its density is even and has one mode, at 0: so the mode of a noisy quantizer is the quantizer (paper, section 2.4).
    A family of your own is a subclass, frozen, of which `Schedule(noise=…)` takes an instance.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Laplace(Noise):
        ...     name = "laplace"
        ...     half_width = math.log(20.0) / math.sqrt(2.0)  # holds 95 %
        ...     reach = 12.0  # the tail beyond is exp(−√2·12) / 2 = 2e-8
        ...
        ...     def cdf(self, z):
        ...         tail = torch.exp(-math.sqrt(2.0) * z.abs()) / 2
        ...         return torch.where(z < 0, tail, 1 - tail)
        ...
        ...     def pdf(self, z):
        ...         return torch.exp(-math.sqrt(2.0) * z.abs()) / math.sqrt(2.0)
        ...
        ...     def sample_like(self, x):
        ...         sign = torch.rand_like(x).sub_(0.5).sign_()
        ...         return sign * torch.empty_like(x).exponential_(math.sqrt(2.0))
        >>> from ana_fx.schedule.schedule import Schedule
        >>> Schedule(noise=Laplace()).noise.name
        'laplace'
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages, tables and pictures call it."""

    @property
    def value(self) -> str:
        """The name, as it was asked for when families were members of an enumeration."""
        warnings.warn("Noise.value goes in the next version; write Noise.name", DeprecationWarning, stacklevel=2)
        return self.name

    @property
    @abstractmethod
    def half_width(self) -> float:
        """Half of the width of its support, or of the interval that holds 95 % of the mass if there is no other."""

    @property
    @abstractmethod
    def reach(self) -> float:
        """The distance from 0 beyond which `cdf` is 0 or 1 to float32 rounding."""

    @property
    def is_compact(self) -> bool:
        """Whether it has no mass outside of its half-width."""
        return self.reach <= self.half_width

    @abstractmethod
    def cdf(self, z: Tensor) -> Tensor:
        """P(noise <= z), element by element."""

    @abstractmethod
    def pdf(self, z: Tensor) -> Tensor:
        """The density at z, element by element; the derivative of `cdf`."""

    @abstractmethod
    def sample_like(self, x: Tensor) -> Tensor:
        """One independent draw for each element of `x`."""

    def density_(self, distance: Tensor, std: Tensor) -> Tensor:
        """The density at a distance from the mean, of noise with that standard deviation; 0 if there is no noise.

        It overwrites `distance`.
        """
        divisor = std.clamp_min(_SMALLEST)
        return self.pdf(distance.div_(divisor)).mul_((std > 0) / divisor)

    def within_(self, distance: Tensor, std: Tensor) -> Tensor:
        """1.0 where the density is not 0, else 0.0. It overwrites `distance`, a distance from the mean."""
        return self.density_(distance, std).ne_(0.0)

    def height(self, std: Tensor) -> Tensor | None:
        """What the density is wherever it is not 0, if it is flat: then one byte a number tells it. Else None."""
        return None

    def std_of(self, half_width: float) -> float:
        """The standard deviation of this family's noise of that half-width."""
        return half_width / self.half_width

    def reach_of(self, half_width: float) -> float:
        """Beyond this distance from the mean the cdf is 0 or 1 to float32 rounding."""
        return self.reach * self.std_of(half_width)

    def num_neighbours(self, half_width: float) -> int:
        """How many thresholds on either side of the nearest one that noise reaches, thresholds one step apart."""
        return math.ceil(self.reach_of(half_width) - 0.5 - _ROUNDING)


class Uniform(Noise):
    """On [−√3, √3]: density 1 / (2√3), distribution function clip(½ + z / (2√3), 0, 1)."""

    name = "uniform"
    half_width = reach = _SQRT3

    def cdf(self, z: Tensor) -> Tensor:
        """The ramp of the hard sigmoid (paper, eq. 3)."""
        return (z * (0.5 / _SQRT3) + 0.5).clamp(0.0, 1.0)

    def pdf(self, z: Tensor) -> Tensor:
        """The same everywhere on the support, ends included."""
        return z.abs().lt_(_SQRT3_INCLUDED).mul_(0.5 / _SQRT3)

    def density_(self, distance: Tensor, std: Tensor) -> Tensor:
        """As for any noise, with one division less for each element."""
        return self.within_(distance, std).mul_(self.height(std))

    def within_(self, distance: Tensor, std: Tensor) -> Tensor:
        """Nearer than the half-width, ends included."""
        return distance.abs_().lt_(self.width(std))

    def width(self, std: Tensor) -> Tensor:
        """The half-width, and so much more that rounding leaves no hole between two bins."""
        return std * _SQRT3_INCLUDED

    def height(self, std: Tensor) -> Tensor:
        """One over the width."""
        return 0.5 / _SQRT3 / std.clamp_min(_SMALLEST)

    def sample_like(self, x: Tensor) -> Tensor:
        """Draws of the interval."""
        return torch.rand_like(x).sub_(0.5).mul_(2.0 * _SQRT3)


class Triangular(Noise):
    """On [−√6, √6], t = z / √6: density (1 − |t|) / √6, distribution function ½ + t − t·|t| / 2."""

    name = "triangular"
    half_width = reach = _SQRT6

    def cdf(self, z: Tensor) -> Tensor:
        """Two parabolas."""
        t = (z / _SQRT6).clamp(-1.0, 1.0)
        return 0.5 + t - 0.5 * t * t.abs()

    def pdf(self, z: Tensor) -> Tensor:
        """A triangle."""
        return (1.0 - z.abs() / _SQRT6).clamp_min(0.0) / _SQRT6

    def sample_like(self, x: Tensor) -> Tensor:
        """Differences of two uniform draws."""
        return torch.rand_like(x).sub_(torch.rand_like(x)).mul_(_SQRT6)


class Normal(Noise):
    """Density exp(−z² / 2) / √(2π), distribution function (1 + erf(z / √2)) / 2."""

    name = "normal"
    half_width = 1.959963984540054  # 95 % of the mass
    reach = 5.5  # ndtr(-5.5) = 2e-8, below half an ulp of 1

    def cdf(self, z: Tensor) -> Tensor:
        """The error function."""
        p: Tensor = torch.special.ndtr(z)
        return p

    def pdf(self, z: Tensor) -> Tensor:
        """The bell."""
        return torch.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))

    def sample_like(self, x: Tensor) -> Tensor:
        """Torch's own draws."""
        return torch.randn_like(x)


class Logistic(Noise):
    """Scale s = √3 / π: distribution function F = 1 / (1 + exp(−z / s)), density F·(1 − F) / s.

    The paper's β is the scale, here it is the standard deviation π·s / √3.
    """

    name = "logistic"
    half_width = math.log(1.95 / 0.05) * _LOGISTIC_UNIT  # 95 % of the mass
    reach = 17.4 * _LOGISTIC_UNIT  # sigmoid(-17.4) = 3e-8

    def cdf(self, z: Tensor) -> Tensor:
        """The sigmoid."""
        return torch.sigmoid(z / _LOGISTIC_UNIT)

    def pdf(self, z: Tensor) -> Tensor:
        """The sigmoid's derivative."""
        p = torch.sigmoid(z / _LOGISTIC_UNIT)
        return p * (1.0 - p) / _LOGISTIC_UNIT

    def sample_like(self, x: Tensor) -> Tensor:
        """The inverse distribution function of uniform draws."""
        tiny = torch.finfo(x.dtype).tiny
        return torch.rand_like(x).clamp_min_(tiny).logit_().mul_(_LOGISTIC_UNIT)


NOISES: Mapping[str, Noise] = MappingProxyType(
    {noise.name: noise for noise in (Uniform(), Triangular(), Normal(), Logistic())}
)


class NoiseType(str, Enum):
    """The names of the paper's four families (section 4.1); a schedule takes them where it takes a `Noise`.

    Examples:
        >>> NoiseType.UNIFORM.noise == Uniform()
        True
    """

    UNIFORM = "uniform"
    """A density that is flat on its support; the straight-through estimator of other tools."""
    TRIANGULAR = "triangular"
    """A density that rises and falls linearly."""
    NORMAL = "normal"
    """The bell curve, without bounds."""
    LOGISTIC = "logistic"
    """The density whose distribution function is the sigmoid, without bounds."""

    @property
    def noise(self) -> Noise:
        """The family."""
        return NOISES[self.value]

    def __getattr__(self, name: str) -> Any:
        """What the family can do; it was asked here before it had a class of its own."""
        if name.startswith("_") or not hasattr(Noise, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warnings.warn(
            f"NoiseType.{self.name}.{name} goes in the next version; write NoiseType.{self.name}.noise.{name}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(self.noise, name)


def noise_called(noise: object) -> Noise:
    """The family of that name, or the one that is given.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(noise, Noise):
        return noise
    known = NOISES.get(noise) if isinstance(noise, str) else None
    if known is None:
        raise ValueError(unknown("noise", noise, NOISES) + ", or an instance of a Noise of your own")
    return known
