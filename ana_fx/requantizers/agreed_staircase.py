"""A staircase that all of TFLite's kernels compute, though each rounds in its own way.

Kernels disagree where an accumulator comes near to a tie: the first rounding of fixed-point kernels moves a stored
accumulator by up to one. With weights stored `factor`-fold, accumulators are `factor` apart, and a bias that is off by
less than half of that moves all of them past the ties together. With few levels one is soon found at which none is
met; a slope that is off by a little finds more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ana_fx.requantizers.fixed_point_staircase import STEEPEST, in_fixed_point
from ana_fx.requantizers.line_fit import LineFit, fit_qlinear
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase

__all__ = ["agreed_channels", "fit_agreed"]

_OTHERS = (Requantizer.Q31, Requantizer.Q31_HALF_UP, Requantizer.SINGLE_ROUNDING)
_LARGEST_DENOMINATOR, _NUM_NEIGHBORS = 8, 16
_NUM_MOVES, _MOVE = 12, 2.0**-8  # of a distance that is too long for its neighbours to lead anywhere
_PAST = 2.0**-20  # by which a slope falls short of a power of two, at which the first rounding moves farthest
_NEAR, _FAR = 2.0**-6, 0.05  # by which a slope is moved at most, of itself: at first, and before giving up
_STEPS = ((512, 2.0**-16), (128, 2.0**-12))  # slopes within 0.4 %, then within 1.6 %, each a chance of its own
_HOPELESS = -16.0  # the logarithm of the chance of one bias, below which no other slope is tried
_MOST = 2**22  # levels that are tried at once


def fit_agreed(line: LineFit, factor: int) -> tuple[QLinearStaircase, Tensor]:
    """The QLinear staircase nearest to a line on whose levels all kernels agree, and the sign of each channel.

    A channel for which none is found has the nearest one, which `agreed_channels` tells.
    """
    if factor > 1 and line.gain.numel() == 1 and not bool(line.offset.any()):
        plain, sign = fit_agreed(line, 1)  # a sum: without a bias it stays one for kernels too
        ends = torch.as_tensor(line.bound, device=line.gain.device).to(torch.int64).reshape(1)
        if not bool(plain.bias.any()) and bool(agreed_channels(_whole(plain), -ends, ends).all()):
            return plain, sign
    bound = torch.as_tensor(line.bound, device=line.gain.device).to(torch.int64)
    fitted, sign = fit_qlinear(replace(line, bound=int(bound.max())), factor, STEEPEST)
    best = _whole(fitted)
    bound = bound.expand(len(best.bias))
    bias, weight_scale = best.bias.clone(), best.weight_scale.expand(len(best.bias)).clone()
    best = replace(best, weight_scale=weight_scale.clone())
    todo = torch.arange(len(bias), device=bias.device)
    for slope in _slopes(best):
        for part in todo.split(max(1, _MOST // (factor * max(1, int(best.hi) - int(best.lo))))):
            moved = replace(best, bias=best.bias[part], weight_scale=best.weight_scale[part] * slope[part])
            distance, is_found = _nearest_agreed(moved, bound[part])
            bias[part] = torch.where(is_found, moved.bias + distance, bias[part])
            weight_scale[part] = torch.where(is_found, moved.weight_scale, weight_scale[part])
            todo = todo[~torch.isin(todo, part[is_found])]
        if not len(todo):
            break
    return replace(fitted, bias=bias, weight_scale=weight_scale), sign


def _slopes(staircase: QLinearStaircase) -> Iterator[Tensor]:
    """Yield factors by which the slopes of the channels are multiplied, one try after the other; float32, [channels].

    Ties lie as many accumulators apart as an accumulator is parts of a level. Where that is a fraction with a small
    denominator, they meet stored accumulators in few places modulo `factor`, and a bias passes all of them. Others
    are left to chance: a threshold is met by a tie that kernels round differently in about 3 of 4 · `factor` places.
    """
    yield torch.ones_like(staircase.weight_scale)
    yield from _fractions(staircase, _NEAR)
    num_thresholds = int(staircase.hi) - int(staircase.lo)
    if num_thresholds * math.log(1.0 - 0.75 / staircase.factor) > _HOPELESS:
        for count, size in _STEPS:
            for step in range(count):
                yield torch.full_like(staircase.weight_scale, 1.0 + (step // 2 + 1) * (1 if step % 2 else -1) * size)
    yield from _fractions(staircase, _FAR)


def _fractions(staircase: QLinearStaircase, furthest: float) -> Iterator[Tensor]:
    """Yield factors that make the distances of ties fractions with small denominators; 1 for those too far from 1."""
    distance = 1.0 / staircase.slope
    largest = min(_LARGEST_DENOMINATOR, staircase.factor // 2)
    parts = [(denominator, 0, 0.0) for denominator in range(largest, 0, -1)]
    if largest:
        whole = torch.round(distance).clamp_min(1.0)
        yield _near(distance / whole * (1.0 - _PAST), furthest).to(staircase.weight_scale.dtype)
        # float32 holds one slope more exactly than its neighbour
        parts += [(1, step * sign, 0.0) for step in range(1, _NUM_NEIGHBORS + 1) for sign in (1, -1)]
        parts += [(1, 0, step * sign * _MOVE) for step in range(1, _NUM_MOVES + 1) for sign in (1, -1)]
    for denominator, step, move in parts:
        whole = torch.round(distance * (1.0 + move) * denominator) + step
        nearest = distance * denominator / whole.clamp_min(1.0)
        yield _near(nearest, furthest).to(staircase.weight_scale.dtype)


def _near(factors: Tensor, furthest: float) -> Tensor:
    """Replace factors that are not that near to 1 by 1."""
    return torch.where((factors - 1.0).abs() < furthest, factors, 1.0)


def _nearest_agreed(staircase: QLinearStaircase, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Find the least move of each channel's bias with which all kernels agree.

    Returns:
        The moves, and whether the kernels agree with them; both [channels].
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
    """Tell for which channels all kernels give the levels of a QLinear staircase, bool, [channels].

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


def _whole(staircase: QLinearStaircase) -> QLinearStaircase:
    """Return the staircase with Python's integers for the ends of its levels."""
    return replace(staircase, lo=int(staircase.lo), hi=int(staircase.hi))
