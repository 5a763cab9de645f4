"""Choosing the step of a quantizer: the one with the least squared error on given numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ana_fx.fake_quantize import Levels

__all__ = ["least_squares_scale", "positive"]

_NUM_CANDIDATES = 32
_NUM_REFINEMENTS = 3
_MIN_SAMPLES, _MAX_NUMBERS = 1024, 2**17  # of a row and of all rows: more would not move the step
_SMALLEST = 2.0**-60  # keeps products and quotients of scales away from denormal numbers


def positive(scale: Tensor) -> Tensor:
    """`scale` as every computation uses it: a learned step that crosses zero stays a step."""
    return scale.abs().clamp_min(_SMALLEST)


@torch.no_grad()
def least_squares_scale(rows: Tensor, levels: Levels) -> Tensor:
    """For each row, the step s that minimises Σ (x − s·σ(x / s))².

    Candidates from a geometric grid, then Lloyd's update s ← Σ x·n / Σ n² of the best one.

    Args:
        rows: Numbers to be quantised, [num_rows, num_samples].
        levels: Levels of the quantizer, as ints.

    Returns:
        Positive steps, float32, [num_rows]. A row without a number to represent gets the mean of
        the others, or 1.
    """
    x = _subsample(rows.detach()).double()
    lo, hi = int(levels.lo), int(levels.hi)
    largest = torch.maximum(x.amax(1) / max(hi, 1), -x.amin(1) / max(-lo, 1) if lo < 0 else -x.new_ones(len(x)))
    is_known = largest > 0
    largest = torch.where(is_known, largest, torch.ones_like(largest))
    best, error = largest, torch.full_like(largest, torch.inf)
    for exponent in torch.linspace(0.3, -4.5, _NUM_CANDIDATES).tolist():
        candidate = largest * 2.0**exponent
        n = _nearest(x, candidate, lo, hi)
        candidate_error = (x - n * candidate[:, None]).square().sum(1)
        best = torch.where(candidate_error < error, candidate, best)
        error = torch.minimum(candidate_error, error)
    for _ in range(_NUM_REFINEMENTS):
        n = _nearest(x, best, lo, hi)
        power = n.square().sum(1)
        update = (x * n).sum(1) / power.clamp_min(1.0)
        best = torch.where((power > 0) & (update > 0), update, best)
    known = best[is_known]
    fallback = known.mean() if len(known) else best.new_ones(())
    return positive(torch.where(is_known, best, fallback).float())


def _nearest(x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
    return torch.round(x / scale[:, None]).clamp_(lo, hi)


def _subsample(rows: Tensor) -> Tensor:
    stride = max(1, rows.shape[1] // max(_MIN_SAMPLES, _MAX_NUMBERS // len(rows)))
    return rows[:, ::stride]
