"""The noisy quantizer σ(x − ν) of additive noise annealing and its exact gradient.

Everything is counted in steps: with u = x / scale, a linear quantizer rises by one level at each
threshold θ_k = k − offset, where offset is ½ for rounding to the nearest level and 0 for the floor.
Only the thresholds near an element, within the reach of the noise, are looked at, so work and memory per element do
not depend on the number of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ana_fx.numerics.levels import Levels
from ana_fx.schedule.degrees import Gradient, GradientRule, Strategy
from ana_fx.schedule.noise import Noise

__all__ = ["LARGEST", "fake_quantize", "quantize"]

LARGEST = torch.finfo(torch.float32).max
_USUAL = Gradient()


def quantize(x: Tensor, scale: Tensor, levels: Levels) -> Tensor:
    """σ(x) in steps: clip(⌊x / scale + offset⌋, lo, hi), as float32 integers."""
    return _clip_((x.float() / scale).add_(levels.offset).floor_(), levels.lo, levels.hi)


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    levels: Levels,
    noise: Noise,
    strategy: Strategy,
    num_neighbours: int,
    scale_gradient: float = 1.0,
    gradient: Gradient = _USUAL,
) -> Tensor:
    """A noisy quantizer (paper, eq. 1 and section 3), with the gradient of its expectation (eq. 3, Proposition 1).

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
        gradient: Of which function it is the derivative; the forward pass does not know it.

    Returns:
        Multiples of `scale` (for the expectation: values between them), float32, shaped as `x`.
        The gradient with respect to `scale` is that of scale · σ(x / scale) with the derivative that
        `gradient` says in place of σ's; for uniform noise of half a step under `mode` this is LSQ's
        (Esser et al. 2020, eq. 3).
    """
    learns_scale = scale.requires_grad  # asked here: a compiled graph does not know ctx.needs_input_grad
    out: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        x, scale, mean, std, levels, noise, strategy, num_neighbours, scale_gradient, gradient, learns_scale
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
        noise: Noise,
        strategy: Strategy,
        num_neighbours: int,
        scale_gradient: float,
        gradient: Gradient,
        learns_scale: bool,
    ) -> Tensor:
        u = x.float() / scale
        shift = levels.offset - mean  # in v the thresholds are the integers
        v = u + shift if learns_scale else u.add_(shift)
        moved = v - gradient.mean if gradient.mean else v
        slope, height = _kept_slope(moved, std, levels, noise, num_neighbours, gradient.rule)
        level = _LEVELS[strategy](v, std, levels, noise, num_neighbours)
        scale_slope = None
        if learns_scale:
            finite = u.clamp_(-LARGEST, LARGEST)  # at infinity the slope is 0, and infinity times 0 is no number
            scale_slope = finite.mul_(_restored(slope, height)).sub_(level).mul_(-scale_gradient)
        ctx.save_for_backward(slope, height, scale_slope)
        ctx.scale_shape = scale.shape
        ctx.dtype = x.dtype
        if torch.compiler.is_compiling():
            return level * scale  # in place a compiled graph would lose the gradient of what is returned
        return level.mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, height, scale_slope = ctx.saved_tensors
        grad_x = (grad * slope if height is None else _restored(slope, height).mul_(grad)).to(ctx.dtype)
        grad_scale = None if scale_slope is None else (grad * scale_slope).sum_to_size(ctx.scale_shape)
        return grad_x, grad_scale, *(None,) * 9


# On the CPU a new tensor costs as much as two operations in place, and a tensor of bools as much as ten; so what is
# true or false of an element is 1.0 or 0.0 here.


def _kept_slope(
    v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int, rule: GradientRule
) -> tuple[Tensor, Tensor | None]:
    """The slope; or, where it is 0 or the height of a flat density, a byte for each number, and the height."""
    height = noise.height(std) if num_neighbours == 0 and rule is GradientRule.EXPECTATION else None
    if height is None:
        return _SLOPES[rule](v, std, levels, noise, num_neighbours), None
    exists = _exists(0, levels)
    distance = _middle_threshold(v, levels, 0).sub_(v)
    within = noise.within_(distance, std if exists is True else std * exists)
    return _bytes_of(within), height


def _bytes_of(truths: Tensor) -> Tensor:
    """Uint8 of what is 1.0 or 0.0; by way of bools it is five times as fast, but a compiled graph views none."""
    if torch.compiler.is_compiling():
        return truths.to(torch.uint8)
    return truths.to(torch.bool).view(torch.uint8)


def _restored(slope: Tensor, height: Tensor | None) -> Tensor:
    """The slope as floats."""
    return slope if height is None else slope.float().mul_(height)


def _slope(v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int) -> Tensor:
    """The derivative of the expectation."""
    distance = _middle_threshold(v, levels, num_neighbours).sub_(v)
    slope = None
    for step in range(-num_neighbours, num_neighbours + 1):
        to_threshold = distance + step if num_neighbours else distance  # the only one can be overwritten
        exists = _exists(step + num_neighbours, levels)
        density = noise.density_(to_threshold, std if exists is True else std * exists)
        slope = density if slope is None else slope.add_(density)
    assert slope is not None
    return slope


def _num_passed(v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int) -> Tensor:
    """The derivative of the sum of ReLUs: how many thresholds v has reached; 0 if there is no noise."""
    return _clip_(torch.floor(v), levels.lo, levels.hi).sub_(levels.lo).mul_(std > 0)


_Formula = Callable[[Tensor, Tensor, Levels, Noise, int], Tensor]
_SLOPES: Mapping[GradientRule, _Formula] = {  # torch.compile does not read a MappingProxyType
    GradientRule.EXPECTATION: _slope,
    GradientRule.RELU: _num_passed,
}


def _expectation(v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int) -> Tensor:
    """E[σ(v − ν)]; thresholds further below count as passed, those above as not reached."""
    threshold = _middle_threshold(v, levels, num_neighbours)
    distance = v - threshold
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, 1.0)
    expectation = threshold.sub_(num_neighbours + 1)
    for step in range(-num_neighbours, num_neighbours + 1):
        past = distance - step
        passed = torch.where(is_noisy, noise.cdf(past / divisor), (past >= 0).to(v.dtype))
        expectation.add_(passed.mul_(_exists(step + num_neighbours, levels)))
    return expectation


def _mode_(v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int) -> Tensor:
    """The quantizer itself; it overwrites v."""
    return _clip_(v.floor_(), levels.lo, levels.hi)


def _random_(v: Tensor, std: Tensor, levels: Levels, noise: Noise, num_neighbours: int) -> Tensor:
    """The quantizer of a draw of v − ν; it overwrites v."""
    return _clip_(v.sub_(noise.sample_like(v).mul_(std)).floor_(), levels.lo, levels.hi)


_LEVELS: Mapping[Strategy, _Formula] = {
    Strategy.EXPECTATION: _expectation,
    Strategy.MODE: _mode_,
    Strategy.RANDOM: _random_,
}


def _middle_threshold(v: Tensor, levels: Levels, num_neighbours: int) -> Tensor:
    """The middle one of the 2 · num_neighbours + 1 thresholds nearest to v, or of as many from the lowest."""
    return _clip_(torch.round(v), levels.lo + 1 + num_neighbours, levels.hi - num_neighbours)


def _exists(index: int, levels: Levels) -> bool | Tensor:
    """Whether there are more than `index` thresholds."""
    return levels.hi - levels.lo > index


def _clip_(level: Tensor, lo: int | Tensor, hi: int | Tensor) -> Tensor:
    """Into [lo, hi], or to lo if that is empty."""
    if isinstance(lo, int) and isinstance(hi, int):
        return level.clamp_(lo, max(lo, hi))
    return level.clamp_max_(hi).clamp_min_(lo)  # both in one operation would take ten times as long
