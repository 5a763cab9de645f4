"""The noisy quantizer σ(x − ν) of additive noise annealing and its exact gradient.

Everything is counted in steps: with u = x / scale, a linear quantizer rises by one level at each
threshold θ_k = k − offset, where offset is ½ for rounding to the nearest level and 0 for the floor.
Only the thresholds near an element, within the reach of the noise, are looked at, so work and memory per element do
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
    return _clip_((x.float() / scale).add_(levels.offset).floor_(), levels)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    levels: Levels,
    noise: NoiseType,
    strategy: Strategy,
    num_neighbours: int,
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
        num_neighbours: How many thresholds on each side of the nearest one the noise can reach.
        scale_gradient: Factor of the gradient with respect to `scale` (LSQ, section 2.2).

    Returns:
        Multiples of `scale` (for the expectation: values between them), float32, shaped as `x`.
        The gradient with respect to `scale` is that of scale · σ(x / scale) with the derivative of
        the expectation in place of σ's; for uniform noise of half a step under `mode` this is LSQ's
        (Esser et al. 2020, eq. 3).
    """
    learns_scale = scale.requires_grad  # asked here: a compiled graph does not know ctx.needs_input_grad
    out: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        x, scale, mean, std, levels, noise, strategy, num_neighbours, scale_gradient, learns_scale
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
        num_neighbours: int,
        scale_gradient: float,
        learns_scale: bool,
    ) -> Tensor:
        v = x.float() / scale
        u = v.clone() if learns_scale else None
        v.sub_(mean - levels.offset)  # in v the thresholds are the integers
        if strategy is Strategy.EXPECTATION:
            level, slope = _expectation_and_slope(v, std, levels, noise, num_neighbours)
        else:
            slope = _slope(v, std, levels, noise, num_neighbours)
            noisy = v if strategy is Strategy.MODE else v.sub_(std * noise.sample_like(v))
            level = _clip_(noisy.floor_(), levels)
        scale_slope = None if u is None else (level - u.mul_(slope)).mul_(scale_gradient)
        ctx.save_for_backward(slope, scale_slope)
        ctx.scale_shape = scale.shape
        ctx.dtype = x.dtype
        return level * scale  # not in place: torch.compile would lose the gradient of what is returned

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, scale_slope = ctx.saved_tensors
        grad_x = (grad * slope).to(ctx.dtype)
        grad_scale = None if scale_slope is None else (grad * scale_slope).sum_to_size(ctx.scale_shape)
        return grad_x, grad_scale, None, None, None, None, None, None, None, None


def _expectation_and_slope(
    v: Tensor, std: Tensor, levels: Levels, noise: NoiseType, num_neighbours: int
) -> tuple[Tensor, Tensor]:
    """E[σ(v − ν)] and its derivative; thresholds further below count as passed, those above as not reached."""
    nearest = torch.round(v)
    expectation = _clip_(nearest - (num_neighbours + 1), levels)
    slope = torch.zeros_like(v)
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, torch.ones_like(std))
    for distance in range(-num_neighbours, num_neighbours + 1):
        threshold = nearest + distance
        is_level = (threshold > levels.lo) & (threshold <= levels.hi)
        z = (v - threshold).div_(divisor)
        passed = torch.where(is_noisy, noise.cdf(z), (z >= 0).to(v.dtype))
        expectation += passed * is_level
        slope += noise.pdf(z) * is_level
    return expectation, slope.mul_(is_noisy / divisor)


def _slope(v: Tensor, std: Tensor, levels: Levels, noise: NoiseType, num_neighbours: int) -> Tensor:
    """The derivative of the expectation alone."""
    nearest = torch.round(v)
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, torch.ones_like(std))
    slope = None
    for distance in range(-num_neighbours, num_neighbours + 1):
        threshold = nearest + distance if distance else nearest
        density = noise.pdf((v - threshold).div_(divisor))
        density *= (threshold > levels.lo).logical_and_(threshold <= levels.hi)
        slope = density if slope is None else slope.add_(density)
    assert slope is not None
    return slope.mul_(is_noisy / divisor)


def _clip_(level: Tensor, levels: Levels) -> Tensor:
    return level.clamp_(levels.lo, levels.hi)  # type: ignore[arg-type]  # both ints or both tensors
