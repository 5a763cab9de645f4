"""The bins of a quantizer under uniform noise, as floats: what `ana_fx.kernels.blocked_quantizer` compares with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ana_fx.kernels.fused_quantizer import Grid
from ana_fx.schedule.noise import Uniform

__all__ = ["Bins", "NoiseReader", "bins_of"]

_NOISE = Uniform()


class Bins(NamedTuple):
    """The levels, and where noise reaches a threshold. In v = x / step + offset the thresholds are integers.

    Args:
        lo: The lowest level.
        hi: The highest level.
        offset: Of v.
        shift: The offset as a tensor, which adds in half the time of a number.
        lower: Clipped to between `lower` and `upper`, v has the same level, which is then its floor.
        upper: See `lower`.
        width: Noise reaches a threshold that is nearer than this …
        is_whole: … which one is to all v that clipping does not change, and to no other.
        height: The slope where noise reaches a threshold; elsewhere it is 0.
    """

    lo: float
    hi: float
    offset: float
    shift: Tensor
    lower: float
    upper: float
    width: float
    is_whole: bool
    height: float


class _Reading(NamedTuple):
    """Two tensors, their versions, and what stood in them then."""

    mean: Tensor
    std: Tensor
    versions: tuple[int, int]
    numbers: tuple[float, float]


class NoiseReader:
    """Mean and standard deviation of a quantizer's noise as floats, read from their tensors only after a write.

    Each write raises a tensor's version; `forget` is for those that go around that.
    """

    def __init__(self) -> None:
        self._known: _Reading | None = None  # written at once: threads may share a model

    def read(self, mean: Tensor, std: Tensor) -> tuple[float, float]:
        """What stands in two 0-dimensional tensors."""
        if mean.is_inference() or std.is_inference():  # they have no versions
            return float(mean), float(std)
        known, versions = self._known, (mean._version, std._version)
        if known is None or known.mean is not mean or known.std is not std or known.versions != versions:
            known = self._known = _Reading(mean, std, versions, (float(mean), float(std)))
        return known.numbers

    def forget(self) -> None:
        """Read anew the next time."""
        self._known = None

    def __reduce__(self) -> tuple[type[NoiseReader], tuple[Any, ...]]:
        return NoiseReader, ()  # the tensors of a copy count their own writes


def bins_of(grid: Grid, step: float, mean: float, std: float) -> Bins:
    """The bins of a quantizer.

    Args:
        grid: Its levels.
        step: Its positive step; with several, any: then the clip range is all numbers or those from 0.
        mean: Of its noise, in steps.
        std: Standard deviation of its noise, likewise.
    """
    lo, hi = float(grid.lowest), float(grid.highest)
    if grid.minimum not in (0.0, -torch.inf):
        lo = min(max(_level_of_end(grid.minimum, step), lo), 0.0)
    if grid.maximum != torch.inf:
        hi = max(min(_level_of_end(grid.maximum, step), hi), 0.0)
    return _bins(lo, hi, grid.offset, mean, std)


def _level_of_end(end: float, step: float) -> float:
    """The level of an end of the clip range, as `Quantizer.levels` has it."""
    return float(np.rint(np.float32(end) * (np.float32(1.0) / np.float32(step))))


@lru_cache(maxsize=4096)
def _bins(lo: float, hi: float, grid_offset: float, mean: float, std: float) -> Bins:
    offset = float(np.float32(grid_offset) - np.float32(mean))
    shift, deviation = (torch.tensor(each, dtype=torch.float32, device="cpu") for each in (offset, std))
    width, height = float(_NOISE.width(deviation)), float(_NOISE.height(deviation))
    if not hi > lo:  # no threshold; or a training ran away, and the step is not a number
        return Bins(lo, lo, offset, shift, lo + 0.5, lo + 0.5, 0.0, False, height)
    if not width >= 0.5:  # nor is the noise
        return Bins(lo, hi, offset, shift, lo + 0.5, hi + 0.5, width, False, height)
    lower, upper = _last_within(lo + 1.0, width, -np.inf), _last_within(hi, width, np.inf)
    return Bins(lo, hi, offset, shift, lower, upper, width, True, height)


def _last_within(threshold: float, width: float, towards: float) -> float:
    """The last float on one side of a threshold that is nearer than the width, as floats are subtracted."""
    centre, away = np.float32(threshold), np.float32(towards)
    at = centre + np.float32(np.copysign(width, towards))
    while abs(centre - at) < np.float32(width):
        at = np.nextafter(at, away)
    while not abs(centre - at) < np.float32(width):
        at = np.nextafter(at, centre)
    return float(at)
