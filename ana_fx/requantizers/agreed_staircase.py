"""A staircase that all of TFLite's kernels compute, though each rounds in its own way.

Kernels disagree where an accumulator comes near to a tie: the first rounding of fixed-point kernels moves a stored
accumulator by up to one. With weights stored `factor`-fold, accumulators are `factor` apart, and a bias that is off by
less than half of that moves all of them past the ties together. With few levels one is soon found at which none is
met; a slope that is off by a little finds more.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ana_fx.requantizers.fixed_point_staircase import STEEPEST, in_fixed_point
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import LineFit, QLinearStaircase, fit_qlinear

__all__ = ["agreed_channels", "fit_agreed"]

_OTHERS = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)
_STEPS = ((512, 2.0**-16), (128, 2.0**-12))  # slopes within 0.4 %, then within 1.6 %, each a chance of its own
_HOPELESS = -16.0  # the logarithm of the chance of one bias, below which no other slope is tried
_MOST = 2**22  # levels that are tried at once


def fit_agreed(line: LineFit, factor: int) -> tuple[QLinearStaircase, Tensor]:
    """The QLinear staircase nearest to a line on whose levels all kernels agree, and the sign of each channel.

    A channel for which none is found has the nearest one, which `agreed_channels` tells.
    """
    bound = torch.as_tensor(line.bound, device=line.gain.device).to(torch.int64)
    fitted, sign = fit_qlinear(replace(line, bound=int(bound.max())), factor, STEEPEST)
    best = replace(fitted, lo=int(fitted.lo), hi=int(fitted.hi))
    bound = bound.expand(len(best.bias))
    bias, weight_scale = best.bias.clone(), best.weight_scale.expand(len(best.bias)).clone()
    best = replace(best, weight_scale=weight_scale.clone())
    todo = torch.arange(len(bias), device=bias.device)
    for slope in _slopes(factor, int(best.hi) - int(best.lo)):
        for part in todo.split(max(1, _MOST // (factor * max(1, int(best.hi) - int(best.lo))))):
            moved = replace(best, bias=best.bias[part], weight_scale=best.weight_scale[part] * slope)
            distance, is_found = _nearest_agreed(moved, bound[part])
            bias[part] = torch.where(is_found, moved.bias + distance, bias[part])
            weight_scale[part] = torch.where(is_found, moved.weight_scale, weight_scale[part])
            todo = todo[~torch.isin(todo, part[is_found])]
        if not len(todo):
            break
    return replace(fitted, bias=bias, weight_scale=weight_scale), sign


def _slopes(factor: int, num_thresholds: int) -> list[float]:
    """What slopes are multiplied with, nearest first.

    A threshold is met by a tie that kernels round differently with a chance of about 3/4 in one of `factor` places.
    """
    is_hopeless = num_thresholds * math.log(1.0 - 0.75 / factor) < _HOPELESS
    steps = () if is_hopeless else _STEPS
    return [
        1.0,
        *(1.0 + (step // 2 + 1) * (1 if step % 2 else -1) * size for count, size in steps for step in range(count)),
    ]


def _nearest_agreed(staircase: QLinearStaircase, bound: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the bias of each channel must be moved so that all kernels agree, and whether that helps; both
    [channels].
    """
    furthest = staircase.factor // 2
    steps = torch.arange(-furthest, furthest + 1, device=bound.device, dtype=staircase.bias.dtype)
    steps = steps[steps.abs().argsort(stable=True)]
    candidates = replace(
        staircase,
        bias=(staircase.bias[:, None] + steps).flatten(),
        weight_scale=staircase.weight_scale.repeat_interleave(len(steps)),
    )
    ends = bound.repeat_interleave(len(steps))
    agrees = agreed_channels(candidates, -ends, ends).reshape(-1, len(steps))
    return steps[agrees.to(torch.uint8).argmax(1)], agrees.any(1)


def agreed_channels(staircase: QLinearStaircase, lowest: Tensor, highest: Tensor) -> Tensor:
    """For which channels all kernels give the levels of a QLinear staircase, bool, [channels].

    Args:
        staircase: With ends that are integers.
        lowest: Smallest accumulator of each channel, int64, [channels].
        highest: Largest one, likewise.
    """
    thresholds = staircase.thresholds(lowest, highest)
    agrees = torch.ones(len(lowest), dtype=torch.bool, device=lowest.device)
    for rounding in _OTHERS:
        agrees &= in_fixed_point(staircase, rounding).is_threshold(thresholds, lowest, highest).all(1)
    return agrees
