"""Choosing the step of a quantizer: the one with the least squared error on given numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ana_fx.numerics.levels import Levels

__all__ = [
    "all_positive",
    "least_squares_scale",
    "one_step",
    "positive",
    "slope_of_positive",
    "slopes_of_positive",
]

_COARSE = (0.3, 0.0, *(-0.3 * k for k in range(1, 16)))  # octaves around the step that just reaches all numbers
_FINE = tuple(0.05 * k for k in range(-5, 6) if k)  # octaves around the best of these
_FINEST = tuple(0.0125 * k for k in range(-3, 4) if k)  # octaves around the best of those
_NUM_REFINEMENTS = 2
_NUM_SAMPLES, _NUM_NUMBERS = 1024, 2**15  # of a row, and of all if that is more: others would not move the step
_BLOCK = 2**18  # numbers that are worked on at a time: enough for the calls to cost nothing, few enough for a cache
_SMALLEST = 2.0**-60  # keeps products and quotients of scales away from denormal numbers
_LARGEST = 2.0**60  # and from infinity


def positive(scale: Tensor) -> Tensor:
    """`scale` as every computation uses it: a learned step that crosses zero, or runs away, stays a step."""
    return scale.abs().clamp(_SMALLEST, _LARGEST)


def all_positive(scales: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`positive` of each of many; where that changes none of them, the scales themselves."""
    least, most = torch.cat([scale.flatten() for scale in scales]).aminmax()
    if least >= _SMALLEST and most <= _LARGEST:
        return scales
    sizes = torch._foreach_abs(scales)
    torch._foreach_clamp_min_(sizes, _SMALLEST)
    torch._foreach_clamp_max_(sizes, _LARGEST)
    return tuple(sizes)


def slopes_of_positive(scales: tuple[Tensor, ...], steps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`slope_of_positive` of each of many, of which `all_positive` has made steps."""
    sizes, slopes = torch._foreach_abs(scales), torch._foreach_sign(scales)
    insides = [size.eq_(step) for size, step in zip(sizes, steps, strict=True)]
    torch._foreach_mul_(slopes, insides)
    return tuple(slopes)


def one_step(scale: Tensor) -> tuple[float, float, Tensor]:
    """Of a scale of one number, on a CPU: `positive`, `slope_of_positive`, and `positive` as a 0-dimensional tensor."""
    number = float(scale)
    size = abs(number)
    step = min(max(size, _SMALLEST), _LARGEST)
    slope = math.copysign(1.0, number) if _SMALLEST <= size <= _LARGEST else 0.0
    if step == number and not scale.ndim:
        return step, slope, scale
    return step, slope, torch.tensor(step, dtype=torch.float32, device="cpu")


def slope_of_positive(scale: Tensor) -> Tensor:
    """The derivative of `positive`, as autograd has it."""
    size = scale.abs()
    return scale.sign() * ((size >= _SMALLEST) & (size <= _LARGEST))


@torch.no_grad()
def least_squares_scale(rows: Tensor, levels: Levels, weights: Tensor | None = None) -> Tensor:
    """For each row, the step s that minimises Σ w·(x − s·σ(x / s))².

    Candidates from geometric grids, each finer than the one before and around its best, then Lloyd's update
    s ← Σ w·x·n / Σ w·n² of the best one.

    Args:
        rows: Numbers to be quantised, [num_rows, num_samples].
        levels: Levels of the quantizer, as ints.
        weights: How much each number counts, shaped as `rows`; by default the same.

    Returns:
        Positive steps, float32, [num_rows]. A row without a number to represent gets the mean of
        the others, or 1.
    """
    x = _subsample(rows.detach()).float().contiguous()
    w = None if weights is None else _subsample(weights).float()
    lo, hi, offset = int(levels.lo), int(levels.hi), levels.offset
    x = x if lo < 0 else x.clamp_min(0.0)
    top = x.amax(1) / hi
    largest = torch.maximum(top, x.amin(1) / lo) if lo < 0 else top
    is_known = largest > 0
    start = torch.where(is_known, largest, torch.ones_like(largest))
    num_rows = max(1, _BLOCK // x.shape[1])
    blocks = [_Rows(some, None, lo, hi, offset) for some in x.split(num_rows)]
    if w is not None:
        blocks = [replace(block, w=some) for block, some in zip(blocks, w.split(num_rows), strict=True)]
    starts = start.split(num_rows)
    best = torch.cat([block.best_step(first) for block, first in zip(blocks, starts, strict=True)])
    known = best[is_known]
    fallback = known.mean() if len(known) else best.new_ones(())
    return positive(torch.where(is_known, best, fallback))


@dataclass(frozen=True)
class _Rows:
    """Rows of numbers, with or without weights, and the levels of their quantizer."""

    x: Tensor
    w: Tensor | None
    lo: int
    hi: int
    offset: float

    def best_step(self, start: Tensor) -> Tensor:
        """For each row the step with the least error that the search finds from `start`, where all are reached.

        A candidate is left out if the ends of each row have as large an error already: a sum of squares is not below
        one of them, rounded or not, so the candidate could not be chosen.
        """
        best, error = start, self._errors(start[None])[0]
        ends = replace(self, x=torch.stack((self.x.amin(1), self.x.amax(1)), 1), w=None)
        for octaves in (_COARSE, _FINE, _FINEST):
            factors = torch.tensor([2.0**exponent for exponent in octaves], device=best.device)
            candidates = best * factors[:, None]
            if self.w is None and len(self.x) > 1:  # torch may add up one row alone in another order
                candidates = candidates[~(ends._squares(candidates).amax(2) >= error).all(1)]
            best, error = self._better(candidates, best, error)
        for _ in range(_NUM_REFINEMENTS):
            n = self._levels(best[None])[0]
            weighted = n if self.w is None else self.w * n
            power = (weighted * n).sum(1)
            total = (self.x * n if self.w is None else self.w * self.x * n).sum(1)
            update = torch.where(power > 0, total / power, torch.zeros_like(power))
            best, error = self._better(torch.where(update > 0, update, best)[None], best, error)
        return best

    def _better(self, candidates: Tensor, best: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """The first best of the candidates, [candidates, rows], where it is better; and its error."""
        if not len(candidates):
            return best, error
        errors = torch.cat([self._errors(some) for some in candidates.split(max(1, _BLOCK // self.x.numel()))])
        least, index = errors.min(0)
        chosen = torch.where(least < error, candidates.gather(0, index[None])[0], best)
        return chosen, torch.minimum(least, error)

    def _levels(self, steps: Tensor) -> Tensor:
        """[candidates, rows] to [candidates, rows, numbers]."""
        return (self.x / steps[:, :, None]).add_(self.offset).floor_().clamp_(self.lo, self.hi)

    def _errors(self, steps: Tensor) -> Tensor:
        """[candidates, rows] to the same."""
        squares = self._squares(steps)
        return (squares if self.w is None else squares.mul_(self.w)).sum(2)

    def _squares(self, steps: Tensor) -> Tensor:
        """[candidates, rows] to [candidates, rows, numbers]: the squared error of each number."""
        return self._levels(steps).mul_(steps[:, :, None]).sub_(self.x).square_()


def _subsample(rows: Tensor) -> Tensor:
    return rows[:, :: math.ceil(rows.shape[1] / max(_NUM_SAMPLES, _NUM_NUMBERS // len(rows))) or 1]
