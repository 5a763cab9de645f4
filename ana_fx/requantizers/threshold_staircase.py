"""The staircase of a codebook: its thresholds, one by one, on accumulators.

    level    q_0 + Σ_k (q_k − q_{k−1}) · [acc ≥ T_k]

It is what it says: no arithmetic rounds, so every target that compares integers computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.numerics.codebook import Codebook
from ana_fx.requantizers.line_fit import LineFit
from ana_fx.requantizers.staircase import along

__all__ = ["ThresholdStaircase", "fit_thresholds"]

_FLATTEST = 2.0**-21  # levels per accumulator unit; a channel as flat as this is a constant


@dataclass(frozen=True)
class ThresholdStaircase:
    """Per channel, the level of each accumulator.

    Args:
        values: The levels, rising.
        thresholds: T, int64, [channels, levels − 1], rising along the last axis.
    """

    values: tuple[int, ...]
    thresholds: Tensor

    @property
    def lo(self) -> int:
        """The lowest level."""
        return self.values[0]

    @property
    def hi(self) -> int:
        """The highest level."""
        return self.values[-1]

    def level(self, accumulator: Tensor, channel_axis: int) -> Tensor:
        """The levels of integer accumulators whose channels lie on that axis, as float32 integers."""
        level = torch.full(accumulator.shape, float(self.lo), device=accumulator.device)
        for index, jump in enumerate(Codebook(self.values, ()).jumps):
            threshold = along(self.thresholds[:, index], channel_axis, accumulator.ndim)
            level.add_(accumulator >= threshold, alpha=jump)
        return level


def fit_thresholds(line: LineFit, codebook: Codebook) -> tuple[ThresholdStaircase, Tensor]:
    """The staircase of a line, and the sign of each channel (see `LineFit.sign`).

    The smallest accumulator with gain · x_scale · acc + offset >= θ · y_scale is T = ⌈(θ − offset / y_scale) / slope⌉.
    """
    is_constant = line.exact_slope < _FLATTEST
    slope = torch.where(is_constant, torch.ones_like(line.exact_slope), line.exact_slope)
    wanted = codebook.table().to(slope.device)
    distance = wanted - line.target.reshape(-1, 1)  # in steps of the output
    limit = torch.as_tensor(line.bound, device=slope.device).double().reshape(-1, 1) + 1
    found = torch.ceil(distance / slope.reshape(-1, 1))
    fixed = torch.where(distance <= 0, -limit, limit)  # reached by every accumulator, or by none
    found = torch.where(is_constant.reshape(-1, 1), fixed, found).maximum(-limit).minimum(limit)
    return ThresholdStaircase(codebook.values, found.to(torch.int64)), line.sign(is_constant)
