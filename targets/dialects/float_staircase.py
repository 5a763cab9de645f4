"""A staircase in float32 operators, proven at its thresholds.

The chain of a channel is round(float32(float32(acc · first_factor + offset)) · last_factor), clipped to the levels.
Every step of it is monotone, so it equals the staircase if it does at each threshold and right before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.staircase import QLinearStaircase

__all__ = ["EXACT", "FloatStaircase", "float_staircase", "thresholds_of"]

EXACT = 2**24  # float32 holds all integers up to here


@dataclass(frozen=True)
class FloatStaircase:
    """Mul, Add, Mul and a rounding, per channel; all float32, [channels].

    Args:
        before: What the signed accumulator is multiplied with.
        offset: What is added then.
        after: What the sum is multiplied with.
        is_floor: Whether it is rounded down, else to the nearest, ties to even.
    """

    before: Tensor
    offset: Tensor
    after: Tensor
    is_floor: bool

    def level(self, accumulator: Tensor, lo: int, hi: int) -> Tensor:
        """Levels of accumulators [channels, …], float32."""
        value = (accumulator.float() * self.before[:, None] + self.offset[:, None]) * self.after[:, None]
        return (torch.floor(value) if self.is_floor else torch.round(value)).clamp(lo, hi)


def float_staircase(module: IntegerMap) -> FloatStaircase | None:
    """A chain that equals a layer map's staircase wherever it can be, or None.

    Tried are the multiplier and shift, where they need no correction, then the formula of the QLinear operators.
    """
    thresholds = thresholds_of(module)
    return next((each for each in _candidates(module) if _is_equal(module, each, thresholds)), None)


def thresholds_of(module: IntegerMap) -> Tensor:
    """The staircase as thresholds of the signed accumulator, int64, [channels, levels − 1]."""
    return module.staircase.thresholds(*module.signed_range())


def _candidates(module: IntegerMap) -> list[FloatStaircase]:
    candidates = []
    code = module.multiply_shift
    if code.correction is None:
        unit = torch.exp2(-code.shift.double())
        before, offset = (code.multiplier * unit).float(), (code.offset * unit).float()
        candidates.append(FloatStaircase(before, offset, torch.ones_like(before), is_floor=True))
    staircase, num_channels = module.staircase, len(module.sign)
    if isinstance(staircase, QLinearStaircase):
        factor = torch.full((num_channels,), float(staircase.factor))
        offset, slope = staircase.bias.float().expand(num_channels), staircase.stored_slope.expand(num_channels)
        candidates.append(FloatStaircase(factor, offset, slope, is_floor=False))
    return candidates


def _is_equal(module: IntegerMap, candidate: FloatStaircase, thresholds: Tensor) -> bool:
    """Whether a candidate has these thresholds, as far as accumulators reach."""
    lowest, highest = (end[:, None] for end in module.signed_range())
    level = torch.arange(module.lo + 1, module.hi + 1)
    is_reached = (candidate.level(thresholds, module.lo, module.hi) >= level) | (thresholds > highest)
    is_first = (candidate.level(thresholds - 1, module.lo, module.hi) < level) | (thresholds <= lowest)
    return bool((is_reached & is_first).all())
