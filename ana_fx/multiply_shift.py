"""The integer requantizer level = clip((multiplier · acc + offset) >> shift, lo, hi), exact and small.

For a given shift the multiplier is the slope times 2**shift, rounded down or up, and the offset lies
in an interval that the thresholds give; the smallest shift with a non-empty interval is taken, since
small multipliers make small hardware.

A float32 formula is not always a line: its products round, by up to 2**-17 of a level at eight bits.
Where accumulators come that near to a tie no multiplier and offset may fit. Then a line that is at
most one level too high is corrected with the threshold of the level it gave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.staircase import ShiftStaircase, along

__all__ = ["MultiplyShift", "encode"]

_MAX_SHIFT = 46
_MAX_MULTIPLIER = 2**28
_UNBOUNDED = 2**62
_NUM_PROBES = 8  # thresholds that are tried first: they reject most shifts at little cost


@dataclass(frozen=True)
class MultiplyShift(ShiftStaircase):
    """A shift staircase, with the thresholds that correct it or None.

    `correction[c, i]` is the smallest accumulator of level lo + i; int64, [channels, levels].
    """

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
    exact, is_exact = _search(thresholds, slope, lowest, highest, lo, slack=0)
    if bool(is_exact.all()):
        return MultiplyShift(lo, hi, *exact)
    near, is_near = _search(thresholds, slope, lowest, highest, lo, slack=1)
    if not bool(is_near.all()):
        return None
    first = torch.full_like(lowest, -_UNBOUNDED)[:, None]  # the lowest level needs no correction
    return MultiplyShift(lo, hi, *near, correction=torch.cat([first, thresholds], 1))


def _search(
    thresholds: Tensor, slope: Tensor, lowest: Tensor, highest: Tensor, lo: int, *, slack: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Multiplier, offset and smallest shift of each channel whose level is at most `slack` too high.

    A few thresholds reject most candidates of all shifts at once. What they leave is tried in order, and
    the two thresholds that contradict each other most in one candidate are held against the others.
    """
    shifts = torch.arange(_MAX_SHIFT + 1).repeat_interleave(2)  # of the slope rounded down, then up
    exact = slope[:, None] * 2.0 ** shifts.double()
    candidates = torch.where(torch.arange(len(shifts)) % 2 == 0, torch.floor(exact), torch.ceil(exact))
    is_open = candidates <= _MAX_MULTIPLIER
    multipliers = torch.where(is_open, candidates, torch.zeros_like(candidates)).to(torch.int64)
    found = torch.zeros(3, len(lowest), dtype=torch.int64)
    is_found = torch.zeros_like(lowest, dtype=torch.bool)

    def reject(rows: Tensor, columns: Tensor) -> Tensor:
        """Close the candidates that these thresholds contradict; the rows that have open ones left."""
        own = thresholds[rows].gather(1, columns).T[:, :, None]  # columns first: the quick axis to reduce
        ends = lowest[rows, None], highest[rows, None]
        least, most = _limits(own, columns.T[:, :, None], multipliers[rows], shifts, *ends, lo, slack)
        is_open[rows] &= least.amax(0) <= most.amin(0)
        return rows[is_open[rows].any(1)]

    every = torch.arange(thresholds.shape[1])
    probes = torch.linspace(0, len(every) - 1, _NUM_PROBES).long().unique()
    todo = reject(torch.arange(len(lowest)), probes.expand(len(lowest), -1))
    while len(todo):
        first = is_open[todo].int().argmax(1)
        m, shift = multipliers[todo, first], shifts[first]
        ends = lowest[todo, None], highest[todo, None]
        lower, upper = _limits(thresholds[todo], every, m[:, None], shift[:, None], *ends, lo, slack)
        (least, last), (most, next_) = lower.max(-1), upper.min(-1)
        fits = least <= most
        offset = torch.minimum(torch.maximum(least, torch.zeros_like(least)), most)
        found[:, todo[fits]] = torch.stack([m, offset, shift])[:, fits]
        is_found[todo[fits]] = True
        is_open[todo, first] = False
        todo = reject(todo[~fits], torch.stack([last, next_], 1)[~fits])
    return (found[0], found[1], found[2]), is_found


def _limits(
    thresholds: Tensor,
    columns: Tensor,
    multiplier: Tensor,
    shift: Tensor,
    lowest: Tensor,
    highest: Tensor,
    lo: int,
    slack: int,
) -> tuple[Tensor, Tensor]:
    """For each threshold the smallest and largest offset with which it is exact, or `slack` levels too high.

    `thresholds` are those of the levels lo + 1 + `columns`; all tensors broadcast.
    """
    least = ((columns + lo + 1) << shift) - multiplier * thresholds
    most = least + (multiplier - 1 + (torch.full_like(shift, slack) << shift))
    is_reached = thresholds <= highest  # some accumulator has this level
    is_crossed = thresholds > lowest  # some accumulator has a lower one
    return least.masked_fill_(~is_reached, -_UNBOUNDED), most.masked_fill_(~is_crossed, _UNBOUNDED)
