"""The integer requantizer level = clip((multiplier · acc + offset) >> shift, lo, hi).

Integer arithmetic can encode every staircase. For a given shift the multiplier is the slope times
2**shift, rounded down or up, and the offset lies in an interval that the thresholds give; the
smallest shift with a non-empty interval is taken, since small multipliers make small hardware.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MultiplyShift", "encode"]

_MAX_MULTIPLIER = 2**31
_MAX_SHIFT = 47
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class MultiplyShift:
    """Per channel integers: int64, [channels]. Holds: 0 <= shift <= 47 and |multiplier| <= 2**31."""

    multiplier: Tensor
    offset: Tensor
    shift: Tensor
    lo: int
    hi: int

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """The levels of int64 accumulators whose channels lie on that axis, as int64."""
        shape = [-1 if axis == channel_axis else 1 for axis in range(accumulator.ndim)]
        product = accumulator * self.multiplier.reshape(shape) + self.offset.reshape(shape)
        return (product >> self.shift.reshape(shape)).clamp(self.lo, self.hi)

    @property
    def multiplier_bits(self) -> int:
        """Bits of the largest multiplier, without its sign."""
        return int(self.multiplier.abs().max()).bit_length()


def encode(
    thresholds: Tensor, slope: Tensor, lowest: Tensor, highest: Tensor, lo: int, hi: int
) -> tuple[MultiplyShift, Tensor]:
    """The multiply-shift with the smallest exact shift for each channel.

    Args:
        thresholds: T[c, k], smallest accumulator in [lowest, highest] of level lo + 1 + k, or
            `highest + 1`; int64, [channels, hi − lo].
        slope: Levels per accumulator unit, float64, [channels], not negative.
        lowest: Smallest accumulator, int64, [channels].
        highest: Largest accumulator, int64, [channels].
        lo: Lowest level.
        hi: Highest level.

    Returns:
        The encoding, and a mask of the channels that have one, [channels].
    """
    num_channels = len(thresholds)
    slope = slope.clamp_max(float(hi - lo + 1))  # a steeper one passes at most one accumulator on the way
    multiplier = torch.zeros(num_channels, dtype=torch.int64)
    offset, shift, is_found = torch.zeros_like(multiplier), torch.zeros_like(multiplier), multiplier.bool()
    for exponent in range(_MAX_SHIFT + 1):
        todo = (~is_found).nonzero().flatten()
        if not len(todo):
            break
        exact = slope[todo] * 2.0**exponent
        for candidate in (torch.floor(exact), torch.ceil(exact)):
            m = candidate.clamp_max(float(_MAX_MULTIPLIER)).to(torch.int64)
            least, most = _offsets(thresholds[todo], m, exponent, lowest[todo], highest[todo], lo)
            is_exact = (least <= most) & ~is_found[todo] & (candidate <= _MAX_MULTIPLIER)
            chosen = todo[is_exact]
            multiplier[chosen] = m[is_exact]
            offset[chosen] = torch.minimum(torch.maximum(least, torch.zeros_like(least)), most)[is_exact]
            shift[chosen] = exponent
            is_found[chosen] = True
    return MultiplyShift(multiplier, offset, shift, lo, hi), is_found


def _offsets(
    thresholds: Tensor, multiplier: Tensor, shift: int, lowest: Tensor, highest: Tensor, lo: int
) -> tuple[Tensor, Tensor]:
    """The smallest and largest offset with which every reachable threshold is exact."""
    levels = torch.arange(lo + 1, lo + 1 + thresholds.shape[1]) << shift
    at_threshold = levels - multiplier[:, None] * thresholds
    is_reached = thresholds <= highest[:, None]  # some accumulator has this level
    is_crossed = thresholds > lowest[:, None]  # some accumulator has a lower one
    least = torch.where(is_reached, at_threshold, -_UNBOUNDED).amax(1)
    most = torch.where(is_crossed, at_threshold + multiplier[:, None] - 1, _UNBOUNDED).amin(1)
    return least, most
