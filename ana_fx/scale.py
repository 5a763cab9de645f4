"""Choosing the step of a quantizer: the one with the least squared error on given numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ana_fx.fake_quantize import Levels

__all__ = ["least_squares_scale", "positive"]

_COARSE = (0.3, 0.0, *(-0.3 * k for k in range(1, 16)))  # octaves around the step that just reaches all numbers
_FINE = tuple(0.3 * k / 24 for k in range(-23, 24))  # octaves around the best of these
_NUM_REFINEMENTS = 3
_MIN_SAMPLES, _MAX_NUMBERS = 1024, 2**16  # of a row and of all rows: more would not move the step
_SMALLEST = 2.0**-60  # keeps products and quotients of scales away from denormal numbers


def positive(scale: Tensor) -> Tensor:
    """`scale` as every computation uses it: a learned step that crosses zero stays a step."""
    return scale.abs().clamp_min(_SMALLEST)


@torch.no_grad()
def least_squares_scale(rows: Tensor, levels: Levels, weights: Tensor | None = None) -> Tensor:
    """For each row, the step s that minimises Σ w·(x − s·σ(x / s))².

    Candidates from a coarse and a fine geometric grid, then Lloyd's update s ← Σ w·x·n / Σ w·n² of the best one.

    Args:
        rows: Numbers to be quantised, [num_rows, num_samples].
        levels: Levels of the quantizer, as ints.
        weights: How much each number counts, shaped as `rows`; by default the same.

    Returns:
        Positive steps, float32, [num_rows]. A row without a number to represent gets the mean of
        the others, or 1.
    """
    x = _subsample(rows.detach()).float()
    lo, hi, offset = int(levels.lo), int(levels.hi), levels.offset
    x = x if lo < 0 else x.clamp_min(0.0)
    w = torch.ones_like(x) if weights is None else _subsample(weights).float()
    top = x.amax(1) / hi
    largest = torch.maximum(top, x.amin(1) / lo) if lo < 0 else top
    is_known = largest > 0
    best = torch.where(is_known, largest, torch.ones_like(largest))
    error = _error(x, w, best, lo, hi, offset)
    for octaves in (_COARSE, _FINE):
        center = best
        for exponent in octaves:
            candidate = center * 2.0**exponent
            candidate_error = _error(x, w, candidate, lo, hi, offset)
            best = torch.where(candidate_error < error, candidate, best)
            error = torch.minimum(candidate_error, error)
    for _ in range(_NUM_REFINEMENTS):
        n = _levels(x, best, lo, hi, offset)
        power = (w * n * n).sum(1)
        update = torch.where(power > 0, (w * x * n).sum(1) / power, torch.zeros_like(power))
        candidate = torch.where(update > 0, update, best)
        candidate_error = _error(x, w, candidate, lo, hi, offset)
        best = torch.where(candidate_error < error, candidate, best)
        error = torch.minimum(candidate_error, error)
    known = best[is_known]
    fallback = known.mean() if len(known) else best.new_ones(())
    return positive(torch.where(is_known, best, fallback))


def _levels(x: Tensor, scale: Tensor, lo: int, hi: int, offset: float) -> Tensor:
    return (x / scale[:, None]).add_(offset).floor_().clamp_(lo, hi)


def _error(x: Tensor, w: Tensor, scale: Tensor, lo: int, hi: int, offset: float) -> Tensor:
    return _levels(x, scale, lo, hi, offset).mul_(scale[:, None]).sub_(x).square_().mul_(w).sum(1)


def _subsample(rows: Tensor) -> Tensor:
    stride = max(1, rows.shape[1] // max(_MIN_SAMPLES, _MAX_NUMBERS // len(rows)))
    return rows[:, ::stride]
