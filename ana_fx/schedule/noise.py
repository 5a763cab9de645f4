"""The noise families of additive noise annealing, in units of their standard deviation.

Spallanzani et al., "Training Quantised Neural Networks with STE Variants: the Additive Noise
Annealing Algorithm", CVPR Workshops 2022, sections 2.1 to 2.3.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor

__all__ = ["NoiseType"]

_SQRT3 = math.sqrt(3.0)
_SQRT3_INCLUDED = _SQRT3 * (1.0 + 2.0**-20)  # so that rounding leaves no hole between two bins
_SQRT6 = math.sqrt(6.0)
_NORMAL_95 = 1.959963984540054  # the standard normal holds 95 % of its mass within this
_LOGISTIC_UNIT = _SQRT3 / math.pi  # the scale of a logistic with standard deviation 1
_SMALLEST = 2.0**-60  # what no division by it makes infinite
_ROUNDING = 1e-9  # a reach of half a step, but for rounding, is one
_LOGISTIC_95 = math.log(1.95 / 0.05) * _LOGISTIC_UNIT


class NoiseType(str, Enum):
    """A family of distributions with mean 0 and standard deviation 1.

    Uniform and triangular noise have compact support. The width of normal and logistic noise is
    that of the interval which holds 95 % of the mass.
    """

    UNIFORM = "uniform"
    TRIANGULAR = "triangular"
    NORMAL = "normal"
    LOGISTIC = "logistic"

    def cdf(self, z: Tensor) -> Tensor:
        """P(noise <= z), element by element."""
        if self is NoiseType.UNIFORM:
            return (z * (0.5 / _SQRT3) + 0.5).clamp(0.0, 1.0)
        if self is NoiseType.TRIANGULAR:
            t = (z / _SQRT6).clamp(-1.0, 1.0)
            return 0.5 + t - 0.5 * t * t.abs()
        if self is NoiseType.NORMAL:
            p: Tensor = torch.special.ndtr(z)
            return p
        return torch.sigmoid(z / _LOGISTIC_UNIT)

    def pdf(self, z: Tensor) -> Tensor:
        """The density at z, element by element; the derivative of `cdf`."""
        if self is NoiseType.UNIFORM:
            return z.abs().lt_(_SQRT3_INCLUDED).mul_(0.5 / _SQRT3)
        if self is NoiseType.TRIANGULAR:
            return (1.0 - z.abs() / _SQRT6).clamp_min(0.0) / _SQRT6
        if self is NoiseType.NORMAL:
            return torch.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))
        p = torch.sigmoid(z / _LOGISTIC_UNIT)
        return p * (1.0 - p) / _LOGISTIC_UNIT

    def density_(self, distance: Tensor, std: Tensor) -> Tensor:
        """The density at a distance from the mean, of noise with that standard deviation; 0 if there is no noise.

        It overwrites `distance`.
        """
        divisor = std.clamp_min(_SMALLEST)
        if self is NoiseType.UNIFORM:
            return distance.abs_().lt_(std * _SQRT3_INCLUDED).mul_(0.5 / _SQRT3 / divisor)
        return self.pdf(distance.div_(divisor)).mul_((std > 0) / divisor)

    def sample_like(self, x: Tensor) -> Tensor:
        """One independent draw for each element of `x`."""
        if self is NoiseType.NORMAL:
            return torch.randn_like(x)
        if self is NoiseType.UNIFORM:
            return torch.rand_like(x).sub_(0.5).mul_(2.0 * _SQRT3)
        if self is NoiseType.TRIANGULAR:
            return torch.rand_like(x).sub_(torch.rand_like(x)).mul_(_SQRT6)
        tiny = torch.finfo(x.dtype).tiny
        return torch.rand_like(x).clamp_min_(tiny).logit_().mul_(_LOGISTIC_UNIT)

    def std_of(self, half_width: float) -> float:
        """The standard deviation of this family's noise of that half-width."""
        return half_width / self._half_width

    def reach_of(self, half_width: float) -> float:
        """Beyond this distance from the mean the cdf is 0 or 1 to float32 rounding."""
        return self._reach * self.std_of(half_width)

    def num_neighbours(self, half_width: float) -> int:
        """How many thresholds on either side of the nearest one that noise reaches, thresholds one step apart."""
        return math.ceil(self.reach_of(half_width) - 0.5 - _ROUNDING)

    @property
    def _half_width(self) -> float:
        return {
            NoiseType.UNIFORM: _SQRT3,
            NoiseType.TRIANGULAR: _SQRT6,
            NoiseType.NORMAL: _NORMAL_95,
            NoiseType.LOGISTIC: _LOGISTIC_95,
        }[self]

    @property
    def _reach(self) -> float:
        return {
            NoiseType.UNIFORM: _SQRT3,
            NoiseType.TRIANGULAR: _SQRT6,
            NoiseType.NORMAL: 5.5,  # ndtr(-5.5) = 2e-8, below half an ulp of 1
            NoiseType.LOGISTIC: 17.4 * _LOGISTIC_UNIT,  # sigmoid(-17.4) = 3e-8
        }[self]
