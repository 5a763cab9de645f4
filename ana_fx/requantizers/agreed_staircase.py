"""A staircase that all of TFLite's kernels compute, though each rounds in its own way.

Kernels disagree where an accumulator comes near to a tie. A bias that is a little off the best one moves all ties of a
channel; with few levels, and weights that are stored with head-room, one is soon found at which none is met.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ana_fx.requantizers.fixed_point_staircase import STEEPEST, in_fixed_point
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import LineFit, QLinearStaircase, fit_qlinear

__all__ = ["agreed_channels", "fit_agreed"]

_OTHERS = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)
_FURTHEST = 8  # stored accumulator units by which a bias is moved at most


def fit_agreed(line: LineFit, factor: int) -> tuple[QLinearStaircase, Tensor]:
    """The QLinear staircase nearest to a line on whose levels all kernels agree, and the sign of each channel.

    A channel for which none is found has the nearest one, which `agreed_channels` tells.
    """
    best, sign = fit_qlinear(line, factor, STEEPEST)
    bound = torch.as_tensor(line.bound, device=best.bias.device).to(torch.int64).expand(len(best.bias))
    is_open = torch.ones(len(best.bias), dtype=torch.bool, device=best.bias.device)
    bias = best.bias
    for step in range(2 * _FURTHEST + 1):
        distance = (step + 1) // 2 * (1 if step % 2 else -1)
        candidate = replace(best, bias=best.bias + distance)
        is_found = is_open & agreed_channels(_whole(candidate), -bound, bound)
        bias = torch.where(is_found, candidate.bias, bias)
        is_open = is_open & ~is_found
    return replace(best, bias=bias), sign


def agreed_channels(staircase: QLinearStaircase, lowest: Tensor, highest: Tensor) -> Tensor:
    """For which channels all kernels give the levels of a QLinear staircase, bool, [channels].

    Args:
        staircase: With levels that are integers.
        lowest: Smallest accumulator of each channel, int64, [channels].
        highest: Largest one, likewise.
    """
    thresholds = staircase.thresholds(lowest, highest)
    agrees = torch.ones(len(lowest), dtype=torch.bool, device=lowest.device)
    for rounding in _OTHERS:
        agrees &= in_fixed_point(staircase, rounding).is_threshold(thresholds, lowest, highest).all(1)
    return agrees


def _whole(staircase: QLinearStaircase) -> QLinearStaircase:
    """The staircase with integers for the ends of its levels."""
    return replace(staircase, lo=int(staircase.lo), hi=int(staircase.hi))
