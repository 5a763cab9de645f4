"""Fits: for each formula, the staircase that comes nearest to a line from accumulators to reals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.staircase import QLinearStaircase, ShiftStaircase, integer_dtype

__all__ = ["LineFit", "ShiftArithmetic", "exponent_of", "fit_qlinear", "fit_shift"]

_STEEPEST = 2.0**10  # more than the span of 8 bits: steeper is no different
_FLATTEST = 2.0**-21  # keeps integer biases below 2**29; a channel as flat as this is a constant
_MULTIPLIER_BITS = 16


@dataclass(frozen=True)
class ShiftArithmetic:
    """The integer arithmetic in which a shift staircase is computed.

    Args:
        bits: Width of multiplier · acc + offset.
        has_common_shift: Whether all channels have one shift.
    """

    bits: int = 64
    has_common_shift: bool = False


@dataclass(frozen=True)
class LineFit:
    """The line that a staircase should come near to: `gain · x_scale · acc + offset`, quantised with scale `y_scale`.

    Args:
        gain: The real output of one accumulator unit at input scale 1, float64, [channels]; any sign.
        offset: The real output at accumulator 0, float64, [channels].
        x_scale: Scale of the input, float32.
        y_scale: Scale of the output, float32.
        levels: The output's levels and rounding.
        bound: No accumulator exceeds this in absolute value, [channels] where it is known for each.
    """

    gain: Tensor
    offset: Tensor
    x_scale: Tensor
    y_scale: Tensor
    levels: Levels
    bound: int | Tensor

    @property
    def exact_slope(self) -> Tensor:
        """Levels per accumulator unit, without the sign, float64."""
        return self.gain.abs() * self._per_unit

    @property
    def target(self) -> Tensor:
        """The level, not rounded, at accumulator 0, float64."""
        return self.offset / self.y_scale.double()

    @property
    def shift(self) -> float:
        """What must be added to the level, not rounded, so that rounding it to the nearest is right."""
        return self.levels.offset - 0.5

    @property
    def is_nearest(self) -> bool:
        """Whether thresholds stand half-way between integers, where the ties of the formulas are."""
        return self.shift == round(self.shift)

    @property
    def _per_unit(self) -> Tensor:
        return self.x_scale.double() / self.y_scale.double()

    def sign(self, is_constant: Tensor) -> Tensor:
        """What each accumulator must be multiplied with: −1 for negative gains, 0 for constants; float32."""
        return torch.where(is_constant, torch.zeros_like(self.gain), torch.sign(self.gain)).float()

    def constant(self) -> Tensor:
        """The level at accumulator 0, not clipped, float64."""
        if self.is_nearest:
            return torch.round(self.target + self.shift)
        return torch.floor(self.target + self.levels.offset)

    def saturation(self, slope: Tensor) -> Tensor:
        """An offset in accumulator units beyond which every accumulator saturates, float64."""
        top = torch.maximum(torch.as_tensor(self.levels.hi).abs(), torch.as_tensor(self.levels.lo).abs()) + 1.0
        return torch.ceil(top.to(slope) / slope) + self.bound


def fit_qlinear(line: LineFit, factor: int, steepest: float = _STEEPEST) -> tuple[QLinearStaircase, Tensor]:
    """Return the QLinear staircase nearest to a line, and the sign of each channel (see `LineFit.sign`).

    Slopes beyond `steepest`, per stored accumulator unit, become that.
    """
    stored_slope = line.exact_slope / factor
    is_constant = stored_slope < _FLATTEST
    slope = torch.where(is_constant, torch.ones_like(stored_slope), stored_slope)
    if line.is_nearest:
        bias = torch.round((line.target + line.shift) / slope)
    else:
        bias = torch.floor((line.target + line.shift) / slope) + 1  # the next integer above, so that no tie remains
    limit = line.saturation(slope * factor) * factor
    bias = torch.where(is_constant, line.constant(), bias)
    bias = torch.maximum(torch.minimum(bias, limit), -limit).to(integer_dtype(factor * int(line.bound)))
    weight_scale = (slope.clamp_max(steepest) * (line.y_scale.double() / line.x_scale.double())).float()
    lo, hi = line.levels.lo, line.levels.hi
    staircase = QLinearStaircase(lo, hi, factor, bias, line.x_scale, weight_scale, line.y_scale)
    return staircase, line.sign(is_constant)


def fit_shift(line: LineFit, arithmetic: ShiftArithmetic) -> tuple[ShiftStaircase, Tensor]:
    """Return the shift staircase nearest to a line, and the sign of each channel (see `LineFit.sign`).

    Multipliers have 16 bits, or as many as leave room for the sums in the arithmetic's width.
    """
    is_constant = line.exact_slope < _FLATTEST
    slope = torch.where(is_constant, torch.ones_like(line.exact_slope), line.exact_slope).clamp_max(_STEEPEST)
    room = 2.0 ** (arithmetic.bits - 1) / (2 * (line.saturation(slope) + 1))
    multiplier_bits = (exponent_of(room) - 1).clamp(1, _MULTIPLIER_BITS)
    shift = (multiplier_bits - exponent_of(slope)).clamp_max(arithmetic.bits - 2)
    if arithmetic.has_common_shift:
        shift = shift.amin().expand_as(shift)
    unit = torch.exp2(shift.double())
    multiplier = torch.round(slope * unit)
    steepness = torch.where(is_constant, slope, line.exact_slope) / slope  # 1, except where the slope was cut
    target = torch.where(is_constant, line.constant(), (line.target + line.levels.offset) / steepness)
    limit = line.saturation(slope) * slope
    offset = torch.floor(torch.maximum(torch.minimum(target, limit), -limit) * unit)
    lo, hi = line.levels.lo, line.levels.hi
    staircase = ShiftStaircase(lo, hi, multiplier.to(torch.int64), offset.to(torch.int64), shift)
    return staircase, line.sign(is_constant)


def exponent_of(x: Tensor) -> Tensor:
    """Return the e of x = f · 2**e with f in [½, 1), int64, of positive float64; inductor breaks on frexp."""
    return (x.view(torch.int64) >> 52) - 1022
