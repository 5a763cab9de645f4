"""The noisy quantizer σ(x − ν) of additive noise annealing and its exact gradient.

Everything is counted in steps: with u = x / scale, a linear quantizer rises by one level at each
threshold θ_k = k − offset, where offset is ½ for rounding to the nearest level and 0 for the floor.
Only the thresholds near an element, within the reach of the noise, are looked at, so work and memory per element do
not depend on the number of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.numerics.levels import Levels
from ana_fx.schedule.degrees import Gradient, GradientRule, Strategy
from ana_fx.schedule.noise import Noise

__all__ = ["LARGEST", "fake_quantize", "is_computed_again", "quantize"]

LARGEST = torch.finfo(torch.float32).max
_USUAL = Gradient()
_LARGE = 2**19  # numbers; to compute again what fewer ones give would take more time than the memory is worth


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
    formula = _Formula(levels, noise, strategy, num_neighbours, gradient)
    learns_scale = scale.requires_grad  # asked here: a compiled graph does not know ctx.needs_input_grad
    if not (torch.is_grad_enabled() and (x.requires_grad or learns_scale)):
        return formula.quantized(x, scale, mean, std)
    keeps_x = is_computed_again(x, strategy)
    if learns_scale and torch.compiler.is_compiling():  # all that backward needs follows from x in one loop
        keeps_x = strategy is not Strategy.RANDOM
    settings = (formula, scale_gradient if learns_scale else None, keeps_x)
    out: Tensor = _FakeQuantize.apply(x, scale, mean, std, *settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def is_computed_again(x: Tensor, strategy: Strategy) -> bool:
    """Whether backward computes anew what follows from x: a large parameter on the CPU, which is there anyway."""
    if torch.compiler.is_compiling():  # compilers choose themselves what to compute again
        return False
    return x.is_leaf and x.is_cpu and x.numel() > _LARGE and strategy is not Strategy.RANDOM


# On the CPU a new tensor costs as much as two operations in place, and a tensor of bools as much as ten; so what is
# true or false of an element is 1.0 or 0.0 here.


class _Formula(NamedTuple):
    """What a noisy quantizer computes; arguments are those of `fake_quantize`."""

    levels: Levels
    noise: Noise
    strategy: Strategy
    num_neighbours: int
    gradient: Gradient

    def quantized(self, x: Tensor, scale: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The value alone."""
        return self.level_(self.steps(x, scale, mean), std).mul_(scale)

    def steps(self, x: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
        """v: x in steps, moved so that the thresholds are the integers."""
        return (x.float() / scale).add_(self.levels.offset - mean)

    def height(self, std: Tensor) -> Tensor | None:
        """What the slope is wherever it is not 0, if it has but one value."""
        is_expectation = self.gradient.rule is GradientRule.EXPECTATION
        return self.noise.height(std) if self.num_neighbours == 0 and is_expectation else None

    def near(self, v: Tensor, std: Tensor) -> Tensor:
        """1.0 where the slope has its height, else 0.0."""
        v = self._moved(v)
        exists = _exists(0, self.levels)
        distance = _middle_threshold(v, self.levels, 0).sub_(v)
        return self.noise.within_(distance, std if exists is True else std * exists)

    def slope(self, v: Tensor, std: Tensor) -> Tensor:
        """The derivative of what takes the quantizer's place in backward."""
        return _SLOPES[self.gradient.rule](self._moved(v), std, self.levels, self.noise, self.num_neighbours)

    def level_(self, v: Tensor, std: Tensor) -> Tensor:
        """The level; it may overwrite v."""
        return _LEVELS[self.strategy](v, std, self.levels, self.noise, self.num_neighbours)

    def _moved(self, v: Tensor) -> Tensor:
        return v - self.gradient.mean if self.gradient.mean else v


class _FakeQuantize(torch.autograd.Function):
    """Keeps slopes for backward, a byte each if they can be; or x, from which these are computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        mean: Tensor,
        std: Tensor,
        formula: _Formula,
        scale_gradient: float | None,
        keeps_x: bool,
    ) -> Tensor:
        ctx.formula, ctx.scale_gradient, ctx.keeps_x = formula, scale_gradient, keeps_x
        ctx.dtype = x.dtype
        v = formula.steps(x, scale, mean)
        if keeps_x:
            ctx.save_for_backward(x, scale, mean.clone(), std.clone())
            return _scaled_(formula.level_(v, std), scale)
        height = formula.height(std)
        slope = formula.slope(v, std) if height is None else _bytes_of(formula.near(v, std))
        out = _scaled_(formula.level_(v, std), scale)
        ctx.save_for_backward(slope, height, *(() if scale_gradient is None else (x, out, scale)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns_scale = ctx.scale_gradient is not None
        if ctx.keeps_x:
            formula = ctx.formula
            x, scale, mean, std = ctx.saved_tensors
            v = formula.steps(x, scale, mean)
            height = formula.height(std)
            slope = formula.slope(v, std) if height is None else formula.near(v, std).mul_(height)
            grad_x = slope.mul_(grad)
            out = formula.level_(v, std).mul_(scale) if learns_scale else grad
        else:
            slope, height, *others = ctx.saved_tensors
            grad_x = grad * slope if height is None else _restored(slope, height).mul_(grad)
            x, out, scale = others or (None, None, None)
        grad_scale = _grad_scale(x, grad_x, out, grad, scale).mul_(ctx.scale_gradient) if learns_scale else None
        return grad_x.to(ctx.dtype), grad_scale, *(None,) * 5


def _scaled_(level: Tensor, scale: Tensor) -> Tensor:
    """The real of each level; in place a compiled graph would lose the gradient of what is returned."""
    return level * scale if torch.compiler.is_compiling() else level.mul_(scale)


def _grad_scale(x: Tensor, grad_x: Tensor, y: Tensor, grad: Tensor, scale: Tensor) -> Tensor:
    """The gradient of the scale, Σ grad · (y − x · dy/dx) / scale: y is scale · σ(x / scale).

    Args:
        x: What was quantised.
        grad_x: Its gradient, grad · dy/dx.
        y: What was returned.
        grad: Its gradient.
        scale: The scale, of the shape that is wanted.
    """
    x = x.float()
    if torch.compiler.is_compiling():  # one loop
        products = grad * y - grad_x * x.clamp(-LARGEST, LARGEST)
        if scale.numel() == 1 and x.ndim > 3:  # channels lie last where the compiler likes; a norm sums as here
            products = products.sum([axis for axis in range(x.ndim) if axis != 1])
        return products.sum_to_size(scale.shape) / scale
    sums = _row_products(grad_x, x, scale) if x.is_cpu else None
    if sums is None or not bool(torch.isfinite(sums).all()):  # which nothing waits for on a CPU
        # At infinity the slope is 0, and infinity times 0 is no number.
        sums = _row_products(grad_x, x.clamp(-LARGEST, LARGEST), scale)
    return _row_products(grad, y, scale).sub_(sums).div_(scale)


def _row_products(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """The sums of a · b for each of the scales, shaped as these."""
    if scale.numel() == 1 and a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1)).reshape(scale.shape)  # without a tensor of products
    return (a * b).sum_to_size(scale.shape)


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


_Table = Callable[[Tensor, Tensor, Levels, Noise, int], Tensor]
_SLOPES: Mapping[GradientRule, _Table] = {  # torch.compile does not read a MappingProxyType
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


_LEVELS: Mapping[Strategy, _Table] = {
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
