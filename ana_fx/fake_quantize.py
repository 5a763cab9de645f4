"""The noisy quantizer σ(x − ν) of additive noise annealing and its exact gradient.

Everything is counted in steps: with u = x / scale, a linear quantizer rises by one level at each
threshold θ_k = k − offset, where offset is ½ for rounding to the nearest level and 0 for the floor.
Only the thresholds within the reach of the noise are looked at, so work and memory per element do
not depend on the number of levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.noise import NoiseType
from ana_fx.schedule import Strategy

__all__ = ["Levels", "fake_quantize", "quantize"]


class Levels(NamedTuple):
    """The levels lo … hi of a quantizer and the distance of a threshold below its level."""

    lo: int | Tensor
    hi: int | Tensor
    offset: float


def quantize(x: Tensor, scale: Tensor, levels: Levels) -> Tensor:
    """σ(x) in steps: clip(⌊x / scale + offset⌋, lo, hi), as float32 integers."""
    return _clip(torch.floor(x.float() / scale + levels.offset), levels)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    levels: Levels,
    noise: NoiseType,
    strategy: Strategy,
    num_thresholds: int,
    scale_gradient: float = 1.0,
) -> Tensor:
    """A noisy quantizer (paper, eqs. 8 to 14), with the gradient of its expectation.

    Args:
        x: Any shape.
        scale: The step; positive; broadcasts against `x`.
        mean: Mean of the noise in steps, 0-dimensional.
        std: Standard deviation of the noise in steps, 0-dimensional; 0 is the plain quantizer,
            whose gradient with respect to `x` is zero.
        levels: Lowest and highest level, and the offset of the thresholds.
        noise: Family of the noise.
        strategy: Expectation, mode or random.
        num_thresholds: How many thresholds on each side of an element the noise can reach.
        scale_gradient: Factor of the gradient with respect to `scale` (LSQ, section 2.2).

    Returns:
        Multiples of `scale` (for the expectation: values between them), float32, shaped as `x`.
        The gradient with respect to `scale` is that of scale · σ(x / scale) with the derivative of
        the expectation in place of σ's; for uniform noise of half a step under `mode` this is LSQ's
        (Esser et al. 2020, eq. 3).
    """
    out: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        x, scale, mean, std, levels, noise, strategy, num_thresholds, scale_gradient
    )
    return out


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        mean: Tensor,
        std: Tensor,
        levels: Levels,
        noise: NoiseType,
        strategy: Strategy,
        num_thresholds: int,
        scale_gradient: float,
    ) -> Tensor:
        u = x.float() / scale
        v = u - mean + levels.offset  # in v the thresholds are the integers
        expectation, slope = _expectation_and_slope(v, std, levels, noise, num_thresholds)
        if strategy is Strategy.EXPECTATION:
            level = expectation
        elif strategy is Strategy.MODE:
            level = _clip(torch.floor(v), levels)
        else:
            level = _clip(torch.floor(v - std * noise.sample_like(v)), levels)
        scale_slope = (level - u * slope) * scale_gradient if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(slope, scale_slope)
        ctx.scale_shape = scale.shape
        ctx.dtype = x.dtype
        return level * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, scale_slope = ctx.saved_tensors
        grad_x = (grad * slope).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        grad_scale = None if scale_slope is None else (grad * scale_slope).sum_to_size(ctx.scale_shape)
        return grad_x, grad_scale, None, None, None, None, None, None, None


def _expectation_and_slope(
    v: Tensor, std: Tensor, levels: Levels, noise: NoiseType, num_thresholds: int
) -> tuple[Tensor, Tensor]:
    """E[σ(v − ν)] and its derivative, from the nearest thresholds on either side of each element.

    Thresholds further below count as passed, those further above as not reached.
    """
    nearest = torch.floor(v)
    expectation = _clip(nearest - num_thresholds, levels)
    slope = torch.zeros_like(v)
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, torch.ones_like(std))
    for distance in range(1 - num_thresholds, num_thresholds + 1):
        threshold = nearest + distance
        is_level = (threshold > levels.lo) & (threshold <= levels.hi)
        z = (v - threshold) / divisor
        passed = torch.where(is_noisy, noise.cdf(z), (v >= threshold).to(v.dtype))
        expectation = expectation + passed * is_level
        slope = slope + noise.pdf(z) * is_level
    return expectation, torch.where(is_noisy, slope / divisor, torch.zeros_like(slope))


def _clip(level: Tensor, levels: Levels) -> Tensor:
    return level.clamp(levels.lo, levels.hi)  # type: ignore[arg-type]  # both ints or both tensors
