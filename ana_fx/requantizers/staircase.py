"""The staircase: from an accumulator to a level, by a formula that a target computes.

A staircase with K levels is the same thing as K − 1 integer thresholds. Two families of formulas:

    QLinear   clip(rint(float32(factor · acc + bias) · slope), lo, hi)
              slope = (x_scale · weight_scale) / y_scale      in float32 and in this order
    shift     clip((multiplier · acc + offset) >> shift, lo, hi)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ana_fx.numerics.levels import Levels

__all__ = [
    "LineFit",
    "QLinearStaircase",
    "ScaledStaircase",
    "ShiftArithmetic",
    "ShiftStaircase",
    "Staircase",
    "along",
    "exponent_of",
    "fit_qlinear",
    "fit_shift",
    "integer_dtype",
]

_STEEPEST = 2.0**10  # more than the span of 8 bits: steeper is no different
_FLATTEST = 2.0**-21  # keeps integer biases below 2**29; a channel as flat as this is a constant
_MULTIPLIER_BITS = 16
_NEAR = 2  # accumulators around a crossing that are searched first


@dataclass(frozen=True)
class Staircase(ABC):
    """Per channel, the level of each accumulator; a higher accumulator has no lower level."""

    per_channel: ClassVar[tuple[str, ...]]  # the fields that are [channels, …] or [1, …], or None

    lo: int | Tensor
    hi: int | Tensor

    @abstractmethod
    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """The levels of integer accumulators whose channels lie on that axis, as float32 integers."""

    @abstractmethod
    def _crossing(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Where real arithmetic reaches each level, and how far off the formula may; float64, [channels, levels].

        One row may stand for all channels.
        """

    @property
    @abstractmethod
    def slope(self) -> Tensor:
        """Levels per accumulator unit, float64, [channels] or [1]."""

    def thresholds(self, lowest: Tensor, highest: Tensor) -> Tensor:
        """T[c, k]: the smallest accumulator of channel c in [lowest, highest] with level >= lo + 1 + k.

        It is `highest + 1` where there is none. Taken from real arithmetic, and where that comes too near to an
        integer to tell, by bisection, since the formula is monotone.

        Args:
            lowest: Smallest accumulator of each channel, int64, [channels].
            highest: Largest one, likewise.

        Returns:
            int64, [channels, hi − lo].
        """
        wanted = self._wanted(lowest)
        bottom, top = lowest[:, None], highest[:, None] + 1
        real, margin = self._crossing(wanted.double())
        real = real.clamp(bottom - 0.5, top - 0.5)  # clear where it was well outside
        is_clear = (real - real.round()).abs_() > margin  # not where any of them is NaN
        found = torch.nan_to_num_(real.ceil_()).to(torch.int64)
        if not bool(is_clear.all()):
            channel, index = (~is_clear).nonzero(as_tuple=True)
            near, ends = found[channel, index], (bottom[channel, 0], top[channel, 0])
            found[channel, index] = self._of(channel)._bisect(wanted[index], near, *ends)
        return found

    def is_threshold(self, found: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        """Whether each is what `thresholds` gives: the level is reached there and not yet right before.

        Both need to hold within [lowest, highest] only. Shaped as `found`.
        """
        wanted = self._wanted(lowest)
        is_reached = (self.level(found, 0) >= wanted).logical_or_(found > highest[:, None])
        is_first = (self.level(found - 1, 0) < wanted).logical_or_(found <= lowest[:, None])
        return is_reached.logical_and_(is_first)

    def _wanted(self, lowest: Tensor) -> Tensor:
        """All levels but the lowest, float32."""
        return torch.arange(int(self.lo) + 1, int(self.hi) + 1, device=lowest.device, dtype=torch.float32)

    def _of(self, channels: Tensor) -> Staircase:
        """The staircases of these channels, in their order."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.per_channel}
        own = {name: value[channels % len(value)] for name, value in fields.items() if value is not None}
        return replace(self, **own)

    def _bisect(self, wanted: Tensor, near: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """For each channel the smallest accumulator in [bottom, top] of a wanted level, or `top`; all [channels]."""
        below, reached = torch.maximum(near - _NEAR, bottom) - 1, torch.minimum(near + _NEAR, top)
        is_around = (below < bottom) | (self._level(below) < wanted)
        is_around &= (reached == top) | (self._level(reached) >= wanted)
        below, reached = torch.where(is_around, below, bottom - 1), torch.where(is_around, reached, top)
        for _ in range(int((reached - below).max()).bit_length()):
            middle = (below + reached) >> 1
            is_reached = self._level(middle) >= wanted
            is_open = reached - below > 1
            reached = torch.where(is_open & is_reached, middle, reached)
            below = torch.where(is_open & ~is_reached, middle, below)
        return reached

    def _level(self, accumulator: Tensor) -> Tensor:
        """The levels of one accumulator of each channel."""
        return self.level(accumulator[:, None], 0)[:, 0]


@dataclass(frozen=True)
class ScaledStaircase(Staircase):
    """A formula whose slope follows from three scales. The stored weights are `factor` times the trained ones, so the
    integer bias is as many times finer.

    `bias` is int32 (int64 if sums need it) and `weight_scale` float32, both [channels] or [1]; the
    other scales are 0-dimensional.
    """

    per_channel: ClassVar[tuple[str, ...]] = ("bias", "weight_scale")

    factor: int
    bias: Tensor
    x_scale: Tensor
    weight_scale: Tensor
    y_scale: Tensor


@dataclass(frozen=True)
class QLinearStaircase(ScaledStaircase):
    """onnxruntime's formula, and XNNPACK's."""

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """Multiply, add, round to float32, multiply by the slope and round to the nearest, ties to even."""
        stored = (accumulator * self.factor).add_(along(self.bias, channel_axis, accumulator.ndim))
        scaled = stored.to(torch.float32).mul_(along(self.stored_slope, channel_axis, accumulator.ndim))
        return scaled.round_().clamp_min_(self.lo).clamp_max_(self.hi)

    def _crossing(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """A level begins half a step below it."""
        stored = (level - 0.5) / self.stored_slope.double().reshape(-1, 1)
        real = (stored - self.bias.double().reshape(-1, 1)) / self.factor
        # Two roundings to float32 move a product by less than 2**-22 of it; those to float64 move `real` by far less.
        return real, stored.abs_().mul_(2.0**-22 / self.factor).add_(real.abs() * 2.0**-50)

    @property
    def stored_slope(self) -> Tensor:
        """Levels per stored accumulator unit, float32."""
        return (self.x_scale * self.weight_scale) / self.y_scale

    @property
    def slope(self) -> Tensor:
        """With the weights' head-room."""
        return self.stored_slope.double() * self.factor


@dataclass(frozen=True)
class ShiftStaircase(Staircase):
    """Integer arithmetic; all three int64, [channels] or [1]."""

    per_channel: ClassVar[tuple[str, ...]] = ("multiplier", "offset", "shift")

    multiplier: Tensor
    offset: Tensor
    shift: Tensor

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """Multiply, add and shift in 64 bits."""
        rank = accumulator.ndim
        product = accumulator.to(torch.int64) * along(self.multiplier, channel_axis, rank)
        shifted = product.add_(along(self.offset, channel_axis, rank)) >> along(self.shift, channel_axis, rank)
        return shifted.to(torch.float32).clamp_min_(self.lo).clamp_max_(self.hi)

    def _crossing(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """A level begins where the shifted sum reaches it."""
        scaled, offset = level * torch.exp2(self.shift.double()).reshape(-1, 1), self.offset.double().reshape(-1, 1)
        multiplier = self.multiplier.double().reshape(-1, 1)
        rounding = (scaled.abs() + offset.abs()) / multiplier * 2.0**-50  # of float64, several times
        return (scaled - offset) / multiplier, rounding

    @property
    def slope(self) -> Tensor:
        """The multiplier over the power of two."""
        return self.multiplier.double() * 2.0 ** -self.shift.double()


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
    """What a staircase should come near to: quantising `gain · x_scale · acc + offset` with step `y_scale`.

    Args:
        gain: The real output of one accumulator unit at input scale 1, float64, [channels]; any sign.
        offset: The real output at accumulator 0, float64, [channels].
        x_scale: Step of the input, float32.
        y_scale: Step of the output, float32.
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
    """The QLinear staircase nearest to a line, and the sign of each channel (see `LineFit.sign`).

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
    """The shift staircase nearest to a line, and the sign of each channel (see `LineFit.sign`).

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
    """The e of x = f · 2**e with f in [½, 1), int64, of positive float64; inductor breaks on frexp."""
    return (x.view(torch.int64) >> 52) - 1022


def integer_dtype(bound: int) -> torch.dtype:
    """The integers in which a sum of that size, a bias and their sum do not overflow."""
    return torch.int32 if bound < 2**29 else torch.int64


def along(channels: Tensor, axis: int, rank: int) -> Tensor:
    """A view of [channels] that broadcasts along one axis of a tensor of that rank."""
    return channels.reshape([-1 if index == axis else 1 for index in range(rank)])
