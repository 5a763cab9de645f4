"""The bins of a quantizer under uniform noise, as floats: what `ana_fx.kernels.blocked_quantizer` compares with."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ana_fx.kernels.fused_quantizer import Grid
from ana_fx.schedule.noise import Uniform

__all__ = ["Bins", "bins_of"]

_NOISE = Uniform()


class Bins(NamedTuple):
    """The levels, and where noise reaches a threshold. In v = x / step + offset the thresholds are integers.

    Args:
        lo: The lowest level.
        hi: The highest level.
        offset: Of v.
        lower: Clipped to between `lower` and `upper`, v has the same level, which is then its floor.
        upper: See `lower`.
        width: Noise reaches a threshold that is nearer than this …
        is_whole: … which one is to all v that clipping does not change, and to no other.
        height: The slope where noise reaches a threshold; elsewhere it is 0.
    """

    lo: float
    hi: float
    offset: float
    lower: float
    upper: float
    width: float
    is_whole: bool
    height: float


def bins_of(grid: Grid, steps: Tensor, mean: Tensor, std: Tensor) -> Bins:
    """The bins of a quantizer with these positive steps."""
    return _bins(*_levels(grid, steps), grid.offset, float(mean), float(std))


def _levels(grid: Grid, steps: Tensor) -> tuple[float, float]:
    """The lowest and the highest level that the clip range leaves, as `Quantizer.levels` has them."""
    if grid.maximum == torch.inf and grid.minimum in (0.0, -torch.inf):
        return float(grid.lowest), float(grid.highest)
    inverse = np.float32(1.0) / np.float32(float(steps))
    lo, hi = (float(np.rint(np.float32(end) * inverse)) for end in (grid.minimum, grid.maximum))
    return min(max(lo, grid.lowest), 0.0), max(min(hi, grid.highest), 0.0)


@lru_cache(maxsize=4096)
def _bins(lo: float, hi: float, grid_offset: float, mean: float, std: float) -> Bins:
    offset = float(np.float32(grid_offset) - np.float32(mean))
    width, height = (float(of(torch.tensor(std))) for of in (_NOISE.width, _NOISE.height))
    if hi <= lo:  # no threshold
        return Bins(lo, lo, offset, lo + 0.5, lo + 0.5, 0.0, False, height)
    if width < 0.5:
        return Bins(lo, hi, offset, lo + 0.5, hi + 0.5, width, False, height)
    lower, upper = _last_within(lo + 1.0, width, -np.inf), _last_within(hi, width, np.inf)
    return Bins(lo, hi, offset, lower, upper, width, True, height)


def _last_within(threshold: float, width: float, towards: float) -> float:
    """The last float on one side of a threshold that is nearer than the width, as floats are subtracted."""
    centre, away = np.float32(threshold), np.float32(towards)
    at = centre + np.float32(np.copysign(width, towards))
    while abs(centre - at) < np.float32(width):
        at = np.nextafter(at, away)
    while not abs(centre - at) < np.float32(width):
        at = np.nextafter(at, centre)
    return float(at)
