"""Deeploy's requantizer: what it clips to, and how it makes other ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ana_fx.targets.microcontrollers.common_shift import CommonShift

__all__ = ["RequantShift", "requant_steps"]

_BYTE = 256


@dataclass(frozen=True)
class RequantShift:
    """One RequantShift: clip(((multiplier · x + addend) + half) >> shift), half = 2**(shift − 1) or 0.

    The clip is to num_levels levels from 0, or around it if signed.
    """

    line: CommonShift
    num_levels: int
    signed: bool

    @property
    def half(self) -> int:
        """What the operator adds to round to the nearest."""
        return 2 ** (self.line.shift - 1) if self.line.shift else 0

    @property
    def lo(self) -> int:
        """The lowest level that the clip leaves."""
        return -(self.num_levels // 2) if self.signed else 0

    @property
    def hi(self) -> int:
        """The highest one."""
        return self.lo + self.num_levels - 1


def requant_steps(line: CommonShift, lo: int, hi: int) -> list[RequantShift] | None:
    """The RequantShifts that give clip(level, lo, hi); None if there are none.

    The operator clips to an even number of levels. Where that is not what is wanted, a first one clips one end and a
    second one, whose multiplier is 1, the other.
    """
    for num_levels, signed in ((hi + 1, False), (-2 * lo, True), (_BYTE, lo < 0)):
        step = RequantShift(line, num_levels, signed)
        if 0 < num_levels <= _BYTE and num_levels % 2 == 0 and line.clipped(step.lo, step.hi) == line.clipped(lo, hi):
            return [step]
    half = _BYTE // 2
    if lo < 0 <= -lo - 1 <= hi < half:
        first = RequantShift(line.moved(-lo), _BYTE, signed=False)
        return [first, RequantShift(_move(line, first, lo), 2 * (hi + 1), signed=True)]
    if -half <= lo <= 0 <= hi < _BYTE + lo:
        first = RequantShift(line.moved(half - 1 - hi), _BYTE, signed=True)
        return [first, RequantShift(_move(line, first, hi - half + 1), -2 * lo or _BYTE, signed=lo < 0)]
    return None


def _move(line: CommonShift, first: RequantShift, distance: int) -> CommonShift:
    """x + distance for the levels of a first step."""
    one = np.ones_like(line.multiplier)
    return CommonShift(one, one * distance, 0, one * first.lo, one * first.hi)
