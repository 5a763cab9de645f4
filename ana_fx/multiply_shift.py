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
    """Multiplier, offset and smallest shift of each channel whose level is at most `slack` too high."""
    probes = torch.linspace(0, thresholds.shape[1] - 1, _NUM_PROBES).long().unique()
    probed = thresholds[:, probes]
    found = torch.zeros(3, len(lowest), dtype=torch.int64)
    is_found = torch.zeros_like(lowest, dtype=torch.bool)
    for exponent in range(_MAX_SHIFT + 1):
        exact = slope * 2.0**exponent
        for candidate in (torch.floor(exact), torch.ceil(exact)):
            todo = (~is_found & (candidate <= _MAX_MULTIPLIER)).nonzero().flatten()
            for columns, table in ((probes, probed), (None, thresholds)):
                m = candidate[todo].to(torch.int64)
                least, most = _offsets(table[todo], columns, m, exponent, lowest[todo], highest[todo], lo, slack)
                todo, least, most = (t[least <= most] for t in (todo, least, most))
            offset = torch.minimum(torch.maximum(least, torch.zeros_like(least)), most)
            found[:, todo] = torch.stack([candidate[todo].to(torch.int64), offset, torch.full_like(offset, exponent)])
            is_found[todo] = True
        if bool((is_found | (exact > _MAX_MULTIPLIER)).all()):
            break
    return (found[0], found[1], found[2]), is_found


def _offsets(
    thresholds: Tensor,
    columns: Tensor | None,
    multiplier: Tensor,
    shift: int,
    lowest: Tensor,
    highest: Tensor,
    lo: int,
    slack: int,
) -> tuple[Tensor, Tensor]:
    """The smallest and largest offset with which every reachable threshold is exact, or `slack` too high.

    `thresholds` are all of them, or those of some columns.
    """
    columns = torch.arange(thresholds.shape[1]) if columns is None else columns
    levels = (columns + lo + 1) << shift
    at_threshold = levels - multiplier[:, None] * thresholds
    is_reached = thresholds <= highest[:, None]  # some accumulator has this level
    is_crossed = thresholds > lowest[:, None]  # some accumulator has a lower one
    least = torch.where(is_reached, at_threshold, -_UNBOUNDED).amax(1)
    before = at_threshold + multiplier[:, None] - 1 + (slack << shift)
    most = torch.where(is_crossed, before, _UNBOUNDED).amin(1)
    return least, most
