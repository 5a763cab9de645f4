"""The staircases of TFLite's integer kernels: a product with a multiplier of 31 bits, and one or two roundings.

    slope           (x_scale · weight_scale) / y_scale = M · 2**(e − 31)    in float64, 2**30 <= M < 2**31
    first           (stored · 2**max(e, 0) · M + 2**30) >> 31               stored = factor · acc + bias
    q31             first / 2**max(−e, 0), rounded, ties away from zero
    q31 half up     first / 2**max(−e, 0), rounded, ties up
    single rounding (stored · M + 2**(30 − e)) >> (31 − e)

TFLite Micro, CMSIS-NN and LiteRT's reference kernels compute the first, LiteRT's built-in kernels the second, and
TOSA and what is built with TFLITE_SINGLE_ROUNDING or CMSIS_NN_USE_SINGLE_ROUNDING the third; the tests hold them
against these kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ana_fx.requantizers.line_fit import LineFit, exponent_of, fit_qlinear
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase, ScaledStaircase, Staircase, along

__all__ = ["STEEPEST", "FixedPointStaircase", "fit_fixed_point", "in_fixed_point"]

STEEPEST = 255.0
"""XNNPACK takes slopes below 256. A steeper one than this passes all levels of a byte within one accumulator."""

_BITS = 31
_FIXED_POINT = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)


@dataclass(frozen=True)
class FixedPointStaircase(ScaledStaircase):
    """One of the three formulas.

    Args:
        rounding: The name of the formula, a value of `Requantizer`.
    """

    rounding: str

    def __post_init__(self) -> None:
        if Requantizer(self.rounding) not in _FIXED_POINT:
            raise ValueError(f"rounding is one of {[each.value for each in _FIXED_POINT]}, got {self.rounding!r}")

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """Multiply by M, shift by 31 bits, and by what is left of the exponent, each rounded as the formula says."""
        rank = accumulator.ndim
        multiplier, exponent = (along(each, channel_axis, rank) for each in self.fixed_point())
        stored = accumulator.to(torch.int64) * self.factor + along(self.bias.to(torch.int64), channel_axis, rank)
        if self.rounding == Requantizer.SINGLE_ROUNDING.value:
            rounded = _half_up(stored * multiplier, _BITS - exponent)
        else:
            first = _half_up((stored << exponent.clamp_min(0)) * multiplier, torch.full_like(exponent, _BITS))
            shift = (-exponent).clamp_min(0)
            if self.rounding == Requantizer.Q31.value:
                first = first - ((first < 0) & (shift > 0)).to(torch.int64)  # ties of negative numbers go down
            rounded = _half_up(first, shift)
        return rounded.to(torch.float32).clamp_min_(self.lo).clamp_max_(self.hi)

    def _crossing(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """A level begins half a step below it; the first rounding moves that by up to half of its own unit."""
        multiplier, exponent = (each.double().reshape(-1, 1) for each in self.fixed_point())
        slope = multiplier * torch.exp2(exponent - _BITS)
        stored = (level - 0.5) / slope
        real = (stored - self.bias.double().reshape(-1, 1)) / self.factor
        # The first rounding moves a product by up to half of what is 2**e of a level; float64 moves `real` by far less.
        first = torch.exp2(exponent.clamp_max(0)) / slope
        return real, first / (2 * self.factor) + (real.abs() + stored.abs() / self.factor) * 2.0**-50

    def fixed_point(self) -> tuple[Tensor, Tensor]:
        """The multiplier M and the exponent e of each channel, int64, [channels] or [1]."""
        slope = self.slope / self.factor
        exponent = exponent_of(slope)
        multiplier = torch.floor(slope * torch.exp2((_BITS - exponent).double()) + 0.5).to(torch.int64)
        is_full = multiplier == 2**_BITS
        return torch.where(is_full, multiplier >> 1, multiplier), exponent + is_full.to(torch.int64)

    @property
    def slope(self) -> Tensor:
        """M · 2**(e − 31) before it is rounded to 31 bits, times the head-room of the weights."""
        weight_scale = self.weight_scale.double()
        return self.x_scale.double() * weight_scale / self.y_scale.double() * self.factor


def fit_fixed_point(line: LineFit, factor: int, rounding: Requantizer) -> tuple[Staircase, Tensor]:
    """The staircase nearest to a line, and the sign of each channel (see `LineFit.sign`)."""
    staircase, sign = fit_qlinear(line, factor, STEEPEST)
    return in_fixed_point(staircase, rounding), sign


def in_fixed_point(staircase: QLinearStaircase, rounding: Requantizer) -> FixedPointStaircase:
    """Return the staircase that a kernel with fixed-point arithmetic computes from the numbers of a QLinear one."""
    own = {field.name: getattr(staircase, field.name) for field in fields(staircase)}
    return FixedPointStaircase(**own, rounding=rounding.value)


def _half_up(x: Tensor, shift: Tensor) -> Tensor:
    """x / 2**shift, rounded to the nearest integer, ties up."""
    return (x + ((torch.ones_like(shift) << shift) >> 1)) >> shift
