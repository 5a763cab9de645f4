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

__all__ = [
    "QLinearStaircase",
    "ScaledStaircase",
    "ShiftStaircase",
    "Staircase",
    "along",
    "integer_dtype",
]

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
        """Tell where reals reach each level, and how far off the formula may be; float64, [channels, levels].

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
    """The formula of integer arithmetic; multiplier, offset and shift are int64, [channels] or [1]."""

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


def integer_dtype(bound: int) -> torch.dtype:
    """The dtype in which a sum of that size, a bias and their sum do not overflow."""
    return torch.int32 if bound < 2**29 else torch.int64


def along(channels: Tensor, axis: int, rank: int) -> Tensor:
    """A view of [channels] that broadcasts along one axis of a tensor of that rank."""
    return channels.reshape([-1 if index == axis else 1 for index in range(rank)])
