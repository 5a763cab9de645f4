"""Rounding a weight so that the layer's outputs, not the weight, have the least squared error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LeastSquares", "RoundedRows", "round_rows"]

_DAMPING = 0.01  # of the variance of an input: directions that the data hardly show keep their weights
_FACTORS = (0.7, 0.8, 0.9, 1.0, 1.1)  # of the scales that are tried
_NUM_SWEEPS = 4


@dataclass(frozen=True)
class LeastSquares:
    """The error of a linear map's outputs as a function of its weight rows: (w − best)ᵀ · curvature · (w − best).

    Args:
        curvature: The damped covariance of the inputs, [groups, inputs, inputs], float64.
        best: The weights with the least error, [groups, rows, inputs], float64.
    """

    curvature: Tensor
    best: Tensor

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor, weight: Tensor) -> LeastSquares:
        """The error on samples, where an offset of each output is free.

        Args:
            inputs: What the rows of each group read, [groups, samples, inputs].
            outputs: What they should give, [groups, samples, rows].
            weight: The weights, kept where the samples do not tell others, [groups, rows, inputs].
        """
        x, y = inputs - inputs.mean(1, keepdim=True), outputs - outputs.mean(1, keepdim=True)
        covariance = (x.mT @ x).double() / x.shape[1]
        variance = covariance.diagonal(dim1=1, dim2=2)
        least = _DAMPING * variance.mean(1, keepdim=True) + torch.finfo(torch.float32).tiny
        damping = torch.diag_embed(_DAMPING * (variance + least))
        curvature = covariance + damping
        wanted = (x.mT @ y).double() / x.shape[1] + damping @ weight.double().mT
        return cls(curvature, torch.cholesky_solve(wanted, torch.linalg.cholesky(curvature)).mT)

    def error(self, rows: Tensor) -> Tensor:
        """The error of each row, [..., groups, rows]."""
        difference = rows - self.best
        return ((difference @ self.curvature) * difference).sum(-1)


@dataclass(frozen=True)
class RoundedRows:
    """Weight rows as integers times scales.

    Args:
        levels: The integers, [groups, rows, inputs].
        scales: The scales, [groups, rows, 1] or [1, 1, 1].
    """

    levels: Tensor
    scales: Tensor


def round_rows(problem: LeastSquares, scales: Tensor, lo: int, hi: int) -> RoundedRows:
    """Round weights to integers times scales with a small output error.

    Inputs are rounded one by one, those of the largest variance first, and those that are still free make up for the
    error (Frantar et al., "GPTQ", 2023, algorithm 1). Scales around the given ones are tried; the best counts. Then
    each level is set anew to the best one given all others, as long as that helps.

    Args:
        problem: The error.
        scales: A first scale of each row, [groups, rows, 1], or of all, [1, 1, 1].
        lo: The lowest level.
        hi: The highest level.
    """
    variance = problem.curvature.diagonal(dim1=1, dim2=2)
    order = variance.argsort(dim=1, descending=True, stable=True)[:, None]
    across = order.expand_as(problem.curvature)
    sorted_problem = LeastSquares(
        problem.curvature.gather(2, across).gather(1, across.mT),
        problem.best.gather(2, order.expand_as(problem.best)),
    )
    tried = torch.stack([factor * scales.double() for factor in _FACTORS])
    rounded = torch.stack([_feed_error_forward(sorted_problem, each, lo, hi) for each in tried])
    errors = sorted_problem.error(rounded * tried)
    if scales.numel() == 1:
        errors = errors.sum((1, 2), keepdim=True)
    chosen = errors.argmin(0)[None, ..., None]
    best_steps = tried.gather(0, chosen.expand(1, *tried.shape[1:]))[0]
    levels = rounded.gather(0, chosen.expand(1, *rounded.shape[1:]))[0]
    levels = _descend(sorted_problem, levels, best_steps, lo, hi)
    return RoundedRows(torch.empty_like(levels).scatter_(2, order.expand_as(levels), levels), best_steps)


def _feed_error_forward(problem: LeastSquares, scales: Tensor, lo: int, hi: int) -> Tensor:
    """Round one input after the other; those that are still free make up for the errors so far."""
    best = problem.best
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(problem.curvature))
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, levels = best.clone(), torch.empty_like(best)
    for column in range(best.shape[2]):
        wanted = left[..., column, None]
        level = torch.round(wanted / scales).clamp(lo, hi)
        row = factor[:, None, column, column:]
        left[..., column:] -= (wanted - level * scales) / row[..., :1] * row
        levels[..., column] = level[..., 0]
    return levels


def _descend(problem: LeastSquares, levels: Tensor, scales: Tensor, lo: int, hi: int) -> Tensor:
    """Sweep over the levels, each of which takes its best value given the others."""
    curvature, best, levels = problem.curvature, problem.best, levels.clone()
    slope = (levels * scales - best) @ curvature
    for _ in range(_NUM_SWEEPS):
        before = levels.clone()
        for column in range(best.shape[2]):
            row = curvature[:, None, column]
            level = levels[..., column, None]
            wanted = level - slope[..., column, None] / (row[..., column, None] * scales)
            change = torch.round(wanted).clamp(lo, hi) - level
            levels[..., column] += change[..., 0]
            slope += change * scales * row
        if torch.equal(before, levels):
            break
    return levels
