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

from ana_fx.requantizers.staircase import ShiftStaircase, along

__all__ = ["MultiplyShift", "encode"]

_MAX_SHIFT = 46
_MAX_MULTIPLIER = 2**28
_UNBOUNDED = 2**62

_Pair = tuple[Tensor, Tensor]  # for each channel two thresholds, int64, [channels, 1]


@dataclass(frozen=True)
class MultiplyShift(ShiftStaircase):
    """A shift staircase, with the thresholds that correct it or None.

    `correction[c, i]` is the smallest accumulator of level lo + i; int64, [channels, levels].
    """

    per_channel: ClassVar[tuple[str, ...]] = (*ShiftStaircase.per_channel, "correction")
    correction: Tensor | None = None

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """Multiply, add and shift; one level less where a correction says that its threshold is not reached."""
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
    if lo == hi:  # a clip below half a step leaves one level
        zeros = torch.zeros_like(lowest)
        return MultiplyShift(lo, hi, zeros, torch.full_like(lowest, lo), zeros)
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
    """For each channel slopes multiplier · 2**-shift, with shifts that do not fall, and whether multipliers are small.

    `slopes` is float64, which holds them exactly, [channels, candidates]; `shifts` is int64, [candidates].
    """

    slopes: Tensor
    shifts: Tensor
    is_small: Tensor

    @classmethod
    def of(cls, slope: Tensor) -> _Candidates:
        """Each slope times 2**shift, rounded down, then up, for all shifts."""
        shifts = torch.arange(_MAX_SHIFT + 1).repeat_interleave(2)
        multipliers = slope[:, None] * torch.exp2(shifts.double())
        multipliers[:, ::2].floor_()
        multipliers[:, 1::2].ceil_()
        is_small = multipliers <= _MAX_MULTIPLIER
        return cls(multipliers.mul_(torch.exp2(-shifts.double())), shifts, is_small)


def _search(candidates: _Candidates, demands: _Demands, pairs: list[_Pair]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Multiplier, offset and smallest shift of each channel whose level is at most `slack` too high.

    None as soon as a channel has none. Two thresholds limit the slopes of all candidates at once: first those of
    `pairs`, which limit it most, then those that contradict each other most in the first candidate that is left.
    """
    slopes, shifts, is_small = candidates.slopes, candidates.shifts, candidates.is_small
    found = torch.zeros(3, len(slopes), dtype=torch.int64)
    least_slope, most_slope = torch.zeros_like(slopes[:, :1]), torch.full_like(slopes[:, :1], torch.inf)
    todo: Tensor | slice = slice(None)  # all channels at first, which indices would copy
    for pair in pairs:
        least, most = demands.slopes(todo, pair)
        least_slope, most_slope = torch.maximum(least_slope, least), torch.minimum(most_slope, most)
    while True:
        own = slopes[todo]
        is_open = own.ge(least_slope).logical_and_(own <= most_slope).logical_and_(is_small[todo])
        choice = is_open.to(torch.uint8).argmax(1, keepdim=True)
        if not bool(is_open.gather(1, choice).all()):
            return None
        slope, shift = own.gather(1, choice), shifts[choice]
        multiplier = (slope * torch.exp2(shift.double())).to(torch.int64)
        (least_offset, first), (most_offset, second) = demands.offsets(todo, multiplier, shift)
        offset = torch.minimum(least_offset.clamp_min(0), most_offset)
        found[:, todo] = torch.cat([multiplier, offset, shift], 1).T  # final where it fits
        is_wrong = (least_offset > most_offset)[:, 0]
        if not bool(is_wrong.any()):
            return found[0], found[1], found[2]
        todo = torch.arange(len(slopes))[todo][is_wrong]
        least, most = demands.slopes(todo, (first[is_wrong], second[is_wrong]))
        slope = slope[is_wrong]  # and neither this one, nor those beyond
        least = torch.where(least < slope, 0, torch.maximum(least, slope.nextafter(slope + 1)))
        most = torch.where(most <= slope, torch.minimum(most, slope.nextafter(slope - 1)), torch.inf)
        least_slope, most_slope = torch.maximum(least_slope[is_wrong], least), torch.minimum(most_slope[is_wrong], most)


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

    def narrowest(self, slope: Tensor) -> list[_Pair]:
        """For each channel two pairs of thresholds that leave little room to slopes: from below, and from above.

        In each half they are the outermost from a line with the given slope.
        """
        columns = torch.arange(self.thresholds.shape[1])
        half, start = (len(columns) + 1) // 2, len(columns) // 2
        least, most = self._masked(columns - slope[:, None] * self.thresholds, slice(None))
        return [
            (least[:, start:].argmax(1, keepdim=True) + start, most[:, :half].argmin(1, keepdim=True)),
            (least[:, :half].argmax(1, keepdim=True), most[:, start:].argmin(1, keepdim=True) + start),
        ]

    def slopes(self, rows: Tensor | slice, pair: _Pair) -> tuple[Tensor, Tensor]:
        """The least and the most slope with which two thresholds of each row can have one offset; float64, [rows, 1].

        The first demands a least offset, the second a most; with `run` accumulators and `rise` levels between them,
        both can be met if rise < run · slope. Rounded to float64, which lets no slope of a candidate change sides, so
        that one which is equal may be wrong.
        """
        thresholds = self.thresholds[rows]
        end, start = (thresholds.gather(1, index) for index in pair)
        rise, run = pair[0] - pair[1] - self.slack, end - start + 1
        both = (end <= self.highest[rows, None]) & (start > self.lowest[rows, None])
        bound = rise.double() / run  # no slope at all, and ±∞, where nothing lies between
        least = torch.where(both & (run >= 0), bound, 0.0)
        return least, torch.where(both & (run < 0), bound, torch.inf)

    def offsets(self, rows: Tensor | slice, multiplier: Tensor, shift: Tensor) -> tuple[_Pair, _Pair]:
        """The least and the most offset for a candidate of each row, each with the threshold that demands it."""
        levels = torch.arange(self.lo + 1, self.lo + 1 + self.thresholds.shape[1])
        offset = (levels << shift).sub_(multiplier * self.thresholds[rows])
        leasts, mosts = self._masked(offset, rows)
        (least, first), (most, second) = leasts.max(1, keepdim=True), mosts.min(1, keepdim=True)
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
