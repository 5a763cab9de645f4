"""The K-quantizer: any levels Q, any thresholds Θ between them (paper, equation 1).

    σ(u) = q_0 + Σ_k (q_k − q_{k−1}) · H(u − θ_k)        H the Heaviside with H(0) = 1

Everything is counted in steps: u = x / scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Codebook", "codebook_scale", "half_way"]

_OCTAVES = tuple(0.25 * k for k in range(-24, 9))  # around the step with which the largest number is the largest level
_FINE = tuple(0.05 * k for k in range(-4, 5) if k)  # around the best of these
_NUM_REFINEMENTS = 4
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60
_NUM_SAMPLES = 2**12  # of a row: others would not move the step


class Codebook(NamedTuple):
    """The levels of a quantizer, rising, and the thresholds between them, one less.

    A threshold is a number, or has one for each channel, shaped so that it broadcasts against what is quantised.
    """

    values: tuple[int, ...]
    thresholds: Sequence[float | Tensor]

    @property
    def jumps(self) -> tuple[int, ...]:
        """By how much the level rises at each threshold."""
        return tuple(high - low for low, high in itertools.pairwise(self.values))

    def level(self, steps: Tensor) -> Tensor:
        """σ(u), element by element, in the dtype of `steps`; NaN is the lowest level."""
        level = torch.full_like(steps, self.values[0])
        for jump, threshold in zip(self.jumps, self.thresholds, strict=True):
            level.add_(steps >= threshold, alpha=jump)
        return level

    def along(self, axis: int, rank: int) -> Codebook:
        """With thresholds of channels, [channels], along an axis of a tensor of that rank."""
        shape = [-1 if each == axis % rank else 1 for each in range(rank)]
        return Codebook(self.values, tuple(t.reshape(shape) if isinstance(t, Tensor) else t for t in self.thresholds))

    def table(self) -> Tensor:
        """The thresholds as float64, [channels or 1, levels − 1]."""
        columns = [torch.as_tensor(each, dtype=torch.float64).reshape(-1) for each in self.thresholds]
        return torch.stack(columns, 1)

    def moved(self, shift: float) -> Codebook:
        """With thresholds higher by so many steps."""
        return self if shift == 0.0 else Codebook(self.values, tuple(each + shift for each in self.thresholds))


def half_way(values: Sequence[int]) -> tuple[float, ...]:
    """The thresholds half-way between levels: where each number takes the nearest level."""
    return tuple((low + high) / 2 for low, high in itertools.pairwise(values))


@torch.no_grad()
def codebook_scale(rows: Tensor, codebook: Codebook, weights: Tensor | None = None) -> Tensor:
    """For each row, the step s that minimises Σ w·(x − s·σ(x / s))², of a grid of steps and then by Lloyd's update.

    Args:
        rows: Numbers to be quantised, [num_rows, num_samples].
        codebook: Levels and thresholds.
        weights: How much each number counts, shaped as `rows`; by default the same.

    Returns:
        Positive steps, float32, [num_rows]; 1 for a row of zeros.
    """
    stride = max(1, rows.shape[1] // _NUM_SAMPLES)
    x = rows.detach().float()[:, ::stride]
    w = torch.ones_like(x) if weights is None else weights.float()[:, ::stride]
    largest = max(map(abs, codebook.values))
    start = x.abs().amax(1) / largest
    best = torch.where(start > 0, start, torch.ones_like(start))
    error = _error(x, w, best, codebook)
    for octaves in (_OCTAVES, _FINE):
        center = best
        for octave in octaves:
            best, error = _better(x, w, center * 2.0**octave, best, error, codebook)
    for _ in range(_NUM_REFINEMENTS):
        n = codebook.level(x / best[:, None])
        power, total = (w * n * n).sum(1), (w * x * n).sum(1)
        update = torch.where((power > 0) & (total > 0), total / power, best)
        best, error = _better(x, w, update, best, error, codebook)
    return torch.where(start > 0, best, torch.ones_like(best)).clamp(_SMALLEST, _LARGEST)


def _better(
    x: Tensor, w: Tensor, step: Tensor, best: Tensor, error: Tensor, codebook: Codebook
) -> tuple[Tensor, Tensor]:
    """The step where it is better than the best so far, for each row, and the error."""
    found = _error(x, w, step, codebook)
    return torch.where(found < error, step, best), torch.minimum(found, error)


def _error(x: Tensor, w: Tensor, step: Tensor, codebook: Codebook) -> Tensor:
    wide = step[:, None]
    return (codebook.level(x / wide).mul_(wide).sub_(x).square_().mul_(w)).sum(1)
