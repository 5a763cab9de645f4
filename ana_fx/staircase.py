"""The staircase: from an accumulator to a level, by the formula of onnxruntime's QLinearConv.

    level(acc) = clip(rint(float32(factor · acc + bias) · slope), lo, hi)
    slope      = (x_scale · weight_scale) / y_scale          in float32 and in this order

The factor is head-room: stored weights are `factor` times the trained ones, which makes the integer
bias as many times finer. A staircase with K levels is the same thing as K − 1 integer thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.fake_quantize import Levels

__all__ = ["Staircase", "along", "fit_staircase", "integer_dtype"]

_STEEPEST = 2.0**10  # more than the span of 8 bits: steeper is no different
_FLATTEST = 2.0**-21  # keeps |bias| below 2**29; a channel as flat as this is a constant


@dataclass(frozen=True)
class Staircase:
    """Per channel, the level of each accumulator.

    `bias` is int32 and `weight_scale` float32, both [channels] or [1]; the other scales and the
    levels are 0-dimensional.

    Holds: slope > 0, so a higher accumulator has no lower level.
    """

    factor: int
    bias: Tensor
    x_scale: Tensor
    weight_scale: Tensor
    y_scale: Tensor
    lo: int | Tensor
    hi: int | Tensor

    @property
    def slope(self) -> Tensor:
        """Levels per stored accumulator unit, float32, [channels]."""
        return (self.x_scale * self.weight_scale) / self.y_scale

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """The levels of integer accumulators whose channels lie on that axis, as float32 integers."""
        rank = accumulator.ndim
        stored = accumulator * self.factor + along(self.bias, channel_axis, rank)
        scaled = stored.to(torch.float32) * along(self.slope, channel_axis, rank)
        return torch.round(scaled).clamp(self.lo, self.hi)  # type: ignore[arg-type]  # both ints or both tensors

    def thresholds(self, lowest: Tensor, highest: Tensor) -> Tensor:
        """T[c, k]: the smallest accumulator of channel c in [lowest, highest] with level >= lo + 1 + k.

        It is `highest + 1` where there is none. Found by bisection: the formula is monotone.

        Args:
            lowest: Smallest accumulator of each channel, int64, [channels].
            highest: Largest one, likewise.

        Returns:
            int64, [channels, hi − lo].
        """
        lo, hi = int(self.lo), int(self.hi)
        wanted = torch.arange(lo + 1, hi + 1, device=lowest.device)
        below = (lowest - 1)[:, None].expand(-1, len(wanted))  # the level here is taken as lower
        reached = (highest + 1)[:, None].expand(-1, len(wanted))  # and here as high enough
        for _ in range(int((highest - lowest).max() + 2).bit_length()):
            middle = (below + reached) >> 1
            is_reached = self.level(middle, 0) >= wanted
            is_open = reached - below > 1
            reached = torch.where(is_open & is_reached, middle, reached)
            below = torch.where(is_open & ~is_reached, middle, below)
        return reached


def integer_dtype(bound: int) -> torch.dtype:
    """The integers in which a sum of that size, a bias and their sum do not overflow."""
    return torch.int32 if bound < 2**29 else torch.int64


def along(channels: Tensor, axis: int, rank: int) -> Tensor:
    """A view of [channels] that broadcasts along one axis of a tensor of that rank."""
    return channels.reshape([-1 if index == axis else 1 for index in range(rank)])


def fit_staircase(
    *,
    gain: Tensor,
    offset: Tensor,
    x_scale: Tensor,
    y_scale: Tensor,
    levels: Levels,
    factor: int,
    bound: int,
) -> tuple[Staircase, Tensor]:
    """The staircase nearest to quantising `gain · x_scale · acc + offset` with step `y_scale`.

    Args:
        gain: The real output of one accumulator unit at input scale 1, float64, [channels]; any sign.
        offset: The real output at accumulator 0, float64, [channels].
        x_scale: Step of the input, float32.
        y_scale: Step of the output, float32.
        levels: The output's levels and rounding.
        factor: Head-room of the stored weights.
        bound: No accumulator exceeds this in absolute value.

    Returns:
        The staircase, and the sign that each channel's accumulator must be multiplied with: −1
        where the gain is negative, 0 where the channel is constant (float32, [channels]).
    """
    gain, offset = torch.broadcast_tensors(gain, offset)
    per_unit = x_scale.double() / y_scale.double()
    exact_slope = gain.abs() / factor * per_unit
    is_constant = exact_slope < _FLATTEST
    slope = torch.where(is_constant, torch.ones_like(exact_slope), exact_slope)
    target = offset / y_scale.double()
    is_floor = levels.offset == 0.0
    if is_floor:
        bias = torch.floor((target - 0.5) / slope) + 1  # the next integer above, so that no tie remains
        constant = torch.floor(target)
    else:
        bias = torch.round(target / slope)
        constant = torch.round(target)
    bias = torch.where(is_constant, constant, bias)
    top = torch.maximum(torch.as_tensor(levels.hi).abs(), torch.as_tensor(levels.lo).abs()) + 1.0
    limit = torch.ceil(top.to(slope) / slope) + factor * bound  # beyond it every accumulator saturates
    bias = torch.maximum(torch.minimum(bias, limit), -limit).to(integer_dtype(factor * bound))
    weight_scale = (slope.clamp_max(_STEEPEST) / per_unit).float()
    staircase = Staircase(factor, bias, x_scale, weight_scale, y_scale, levels.lo, levels.hi)
    return staircase, torch.where(is_constant, torch.zeros_like(gain), torch.sign(gain)).float()
