"""The integer requantizer level = clip((multiplier · acc + offset) >> shift, lo, hi), exact and small.

For a given shift the multiplier is the slope times 2**shift, rounded down or up, and the offset lies
in an interval that the thresholds give; the smallest shift with a non-empty interval is taken, since
small multipliers make small hardware.

A float32 formula is not always a line: its products round, by up to 2**-17 of a level at eight bits.
Where accumulators come that near to a tie no multiplier and offset may fit. Then a line that is at
most one level too high is corrected with the threshold of the level it gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ana_fx.staircase import ShiftStaircase, along

__all__ = ["MultiplyShift", "encode"]

_MAX_SHIFT = 46
_MAX_MULTIPLIER = 2**28
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class MultiplyShift(ShiftStaircase):
    """A shift staircase, with the thresholds that correct it or None.

    `correction[c, i]` is the smallest accumulator of level lo + i; int64, [channels, levels].
    """

    per_channel: ClassVar[tuple[str, ...]] = (*ShiftStaircase.per_channel, "correction")
    correction: Tensor | None = None

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """See the base class."""
        level = super().level(accumulator, channel_axis)
        if self.correction is None:
            return level
        num_channels, num_levels = self.correction.shape
        index = level.to(torch.int64) - self.lo
        if num_channels > 1:
            first = torch.arange(num_channels, device=index.device) * num_levels
            index = index + along(first, channel_axis, index.ndim)
        return level - (accumulator < self.correction.flatten()[index]).to(level.dtype)

    @property
    def multiplier_bits(self) -> int:
        """Bits of the largest multiplier, without its sign."""
        return int(self.multiplier.abs().max()).bit_length()


def encode(
    thresholds: Tensor, slope: Tensor, lowest: Tensor, highest: Tensor, lo: int, hi: int
) -> MultiplyShift | None:
    """The multiply-shift with the smallest exact shift for each channel, or None if there is none.

    Args:
        thresholds: T[c, k], smallest accumulator in [lowest, highest] of level lo + 1 + k, or
            `highest + 1`; int64, [channels, hi − lo].
        slope: Levels per accumulator unit, float64, [channels], not negative.
        lowest: Smallest accumulator, int64, [channels].
        highest: Largest accumulator, int64, [channels].
        lo: Lowest level.
        hi: Highest level.
    """
    slope = slope.clamp_max(float(hi - lo + 1))  # a steeper one passes at most one accumulator on the way
    candidates = _Candidates.of(slope)
    demands = _Demands(thresholds, lowest, highest, lo, slack=0)
    pairs = demands.narrowest(slope)
    exact = _search(candidates, demands, pairs)
    if exact is not None:
        return MultiplyShift(lo, hi, *exact)
    near = _search(candidates, replace(demands, slack=1), pairs)
    if near is None:
        return None
    first = torch.full_like(lowest, -_UNBOUNDED)[:, None]  # the lowest level needs no correction
    return MultiplyShift(lo, hi, *near, correction=torch.cat([first, thresholds], 1))


@dataclass(frozen=True)
class _Candidates:
    """For each channel multipliers, and for each of them its shift and whether it is small enough."""

    multipliers: Tensor
    shifts: Tensor
    is_small: Tensor

    @classmethod
    def of(cls, slope: Tensor) -> _Candidates:
        """Each slope times 2**shift, rounded down, then up, for all shifts."""
        shifts = torch.arange(_MAX_SHIFT + 1).repeat_interleave(2)
        exact = slope[:, None] * 2.0 ** shifts.double()
        exact[:, ::2].floor_()
        exact[:, 1::2].ceil_()
        is_small = exact <= _MAX_MULTIPLIER
        return cls(exact.clamp_max_(_MAX_MULTIPLIER).to(torch.int64), shifts, is_small)


def _search(
    candidates: _Candidates, demands: _Demands, pairs: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Multiplier, offset and smallest shift of each channel whose level is at most `slack` too high.

    None as soon as a channel has none. Two thresholds that contradict each other reject candidates of all shifts at
    once: first `pairs`, those that limit the slope most, then those that contradict each other most in the first
    candidate that is left.
    """
    is_open, shifts = candidates.is_small.clone(), candidates.shifts
    found = torch.zeros(3, len(is_open), dtype=torch.int64)

    def reject(rows: Tensor, first: Tensor, second: Tensor) -> bool:
        """Close the candidates for which two thresholds contradict each other; False if a row has none left."""
        rise, run = demands.contradiction(rows, first, second)
        is_open[rows] &= rise[:, None] << shifts < run[:, None] * candidates.multipliers[rows]
        return bool(is_open[rows].any(1).all())

    todo = torch.arange(len(is_open))
    if not all(reject(todo, first, second) for first, second in pairs):
        return None
    while len(todo):
        choice = is_open[todo].int().argmax(1)
        m, shift = candidates.multipliers[todo, choice], shifts[choice]
        (least, first), (most, second) = demands.offsets(todo, m, shift)
        fits = least <= most
        found[:, todo[fits]] = torch.stack([m, torch.minimum(least.clamp_min(0), most), shift])[:, fits]
        is_open[todo, choice] = False
        todo, first, second = todo[~fits], first[~fits], second[~fits]
        if not reject(todo, first, second):
            return None
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class _Demands:
    """What thresholds demand of the offset of a line that is exact, or up to `slack` levels too high.

    A threshold that is reached, whose level some accumulator has, demands at least level · 2**shift − multiplier ·
    threshold. One that is crossed, below which there is an accumulator, demands at most (multiplier − 1 + slack ·
    2**shift) more than that.
    """

    thresholds: Tensor
    lowest: Tensor
    highest: Tensor
    lo: int
    slack: int

    def narrowest(self, slope: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each channel two pairs of thresholds that leave little room to slopes: from below, and from above.

        In each half they are the outermost from a line with the given slope.
        """
        columns = torch.arange(self.thresholds.shape[1])
        half, start = (len(columns) + 1) // 2, len(columns) // 2
        least, most = self._masked(columns - slope[:, None] * self.thresholds, slice(None))
        return [
            (least[:, start:].argmax(1) + start, most[:, :half].argmin(1)),
            (least[:, :half].argmax(1), most[:, start:].argmin(1) + start),
        ]

    def contradiction(self, rows: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Levels and accumulators from the second threshold, which demands a most, to the first, with its least.

        Some offset is right for both if rise · 2**shift < run · multiplier.
        """
        end, start = self.thresholds[rows, first], self.thresholds[rows, second]
        both = (end <= self.highest[rows]) & (start > self.lowest[rows])
        return torch.where(both, first - second - self.slack, -1), torch.where(both, end - start + 1, 0)

    def offsets(self, rows: Tensor, multiplier: Tensor, shift: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """The least and the most offset for a candidate of each row, each with the threshold that demands it."""
        levels = torch.arange(self.lo + 1, self.lo + 1 + self.thresholds.shape[1])
        offset = (levels << shift[:, None]) - multiplier[:, None] * self.thresholds[rows]
        leasts, mosts = self._masked(offset, rows)
        (least, first), (most, second) = leasts.max(1), mosts.min(1)
        return (least, first), (most + multiplier - 1 + (self.slack << shift), second)

    def _masked(self, offset: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Offsets of thresholds, without limit where these are not reached, and where they are not crossed."""
        thresholds, lowest, highest = self.thresholds[rows], self.lowest[rows, None], self.highest[rows, None]
        least = most = offset
        if bool((thresholds[:, -1:] > highest).any()):  # masks are slow and mostly not needed
            least = offset.masked_fill(thresholds > highest, -_UNBOUNDED)
        if bool((thresholds[:, :1] <= lowest).any()):
            most = offset.masked_fill(thresholds <= lowest, _UNBOUNDED)
        return least, most
