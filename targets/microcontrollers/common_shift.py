"""The requantizer as one multiplication, one addition and one shift for a whole layer, in 32 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.staircase import ShiftStaircase

__all__ = ["CommonShift", "common_shift"]

_Integers = np.ndarray[Any, np.dtype[np.object_]]  # of Python's integers: nothing overflows before it is refused
_INT32 = 2**31 - 1
_LARGEST_SHIFT = 30


@dataclass(frozen=True)
class CommonShift:
    """level = (multiplier · acc + offset) >> shift, before it is clipped.

    Args:
        multiplier: [channels]; negative where the gain is.
        offset: [channels].
        shift: That of all channels.
        low: Smallest accumulator, [channels].
        high: Largest accumulator, [channels].
    """

    multiplier: _Integers
    offset: _Integers
    shift: int
    low: _Integers
    high: _Integers

    def moved(self, distance: int) -> CommonShift:
        """The same with all levels higher by a distance."""
        return replace(self, offset=self.offset + (distance << self.shift))

    @property
    def is_uniform(self) -> bool:
        """Whether all channels have one multiplier and one offset."""
        return len(set(self.multiplier)) == len(set(self.offset)) == 1

    @property
    def level_range(self) -> tuple[int, int]:
        """The lowest and the highest level that occur if nothing is clipped."""
        levels = (self._products + self.offset) >> self.shift
        return int(levels.min()), int(levels.max())

    def clipped(self, lo: int, hi: int) -> tuple[int, int]:
        """The lowest and the highest level that a clip to [lo, hi] leaves."""
        lowest, highest = self.level_range
        return min(max(lowest, lo), hi), max(min(highest, hi), lo)

    def largest(self, *, rounding: int = 0) -> int:
        """The largest absolute number on the way to multiplier · acc + (offset − rounding) + rounding."""
        sums = self._products + self.offset
        steps = (self.multiplier, self.offset, self.offset - rounding, self._products, sums, sums - rounding)
        return max(int(abs(each).max()) for each in steps)

    def misfit(self, *, rounding: int = 0) -> str | None:
        """Why 32-bit arithmetic cannot compute it; None if it can."""
        largest = self.largest(rounding=rounding)
        if largest <= _INT32 and self.shift <= _LARGEST_SHIFT:
            return None
        return (
            f"its requantizer can reach {largest} and shifts by {self.shift}, needed at most {_INT32} and "
            f"{_LARGEST_SHIFT} (32 bits, one shift for all channels)"
        )

    @property
    def _products(self) -> _Integers:
        return np.stack([self.multiplier * self.low, self.multiplier * self.high])


def common_shift(module: IntegerMap) -> CommonShift | None:
    """A layer's requantizer with one shift for all channels; None if it needs a correction.

    A channel's own shift is the smallest for it, and (2·multiplier · acc + 2·offset) >> (shift + 1) is the same
    level: so the largest of these shifts is the smallest for the layer. The trained staircase may have one as well;
    of both the one with the smaller numbers is taken. Accumulators of a sum are counted without its common
    coefficient.
    """
    code = module.multiply_shift
    if code.correction is not None:
        return None
    lines = [_line(module, each) for each in (code, module.staircase) if isinstance(each, ShiftStaircase)]
    return min(lines, key=lambda line: line.largest())


def _line(module: IntegerMap, code: ShiftStaircase) -> CommonShift:
    unit = int(module.weight.abs().min()) if module.operator.num_inputs > 1 and module.weight is not None else 1
    columns = torch.broadcast_tensors(
        *(each.cpu() for each in (code.multiplier, code.offset, code.shift, module.sign, module.lowest, module.highest))
    )
    multiplier, offset, shifts, sign, low, high = (np.array(each.tolist(), dtype=object) for each in columns)
    shift = int(shifts.max())
    spread = 2 ** (shift - shifts)
    return CommonShift(multiplier * spread * sign * unit, offset * spread, shift, low // unit, high // unit)
