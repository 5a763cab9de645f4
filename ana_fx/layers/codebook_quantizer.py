"""The quantizer of a codebook: levels and thresholds that need not be alike, down to one bit."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.codebook import Codebook
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.noise import Noise
from ana_fx.schedule.schedule import Strategy

__all__ = ["CodebookQuantizer", "fake_quantize_codebook", "quantizer_of"]


class CodebookQuantizer(Quantizer):
    """A K-quantizer with annealed noise (paper, equation 1). Its work is K − 1 comparisons a number, K at most 16.

    Noise is measured in the smallest distance of two levels: for −1 and 1 half a unit reaches from −1 to 1.
    """

    @property
    def codebook(self) -> Codebook:
        """The levels and thresholds, moved by the static mean of the noise if it has one."""
        found = self.integer_type.codebook
        assert found is not None
        return self.moved(found)

    @property
    def _unit(self) -> int:
        """What noise is measured in, in steps."""
        levels = self.integer_type.levels
        return min(high - low for low, high in itertools.pairwise(levels))

    @property
    def _clip(self) -> tuple[float, float]:
        return -torch.inf, torch.inf

    @property
    def _all_levels(self) -> Codebook:
        return self.codebook

    def _filled(self, scale: Tensor) -> Tensor:
        return scale

    @torch.no_grad()
    def loses(self, x: Tensor) -> bool:
        """Whether numbers that differ all get one level."""
        least, most = torch.aminmax(x.float())
        first, last = (float(self.quantize(end)) for end in (least, most))
        return bool(least < most) and first == last

    def quantize(self, x: Tensor) -> Tensor:
        """The levels of `x` without noise, as float32 integers."""
        return self.codebook.level(x.float() / positive(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        """The noisy quantizer; float32, shaped as `x`."""
        if not self.is_calibrated:
            self._calibrate_on_first_batch(x)
        scale = self.scale
        factor = (x.numel() / scale.numel() * self.integer_type.qmax) ** -0.5 if scale.requires_grad else 1.0
        mean, std = self.mean * self._unit, self.std * self._unit
        return fake_quantize_codebook(x, positive(scale), (mean, std), self, factor)


def fake_quantize_codebook(
    x: Tensor, scale: Tensor, noise: tuple[Tensor, Tensor], quantizer: CodebookQuantizer, scale_gradient: float = 1.0
) -> Tensor:
    """A noisy K-quantizer (paper, eqs. 1 and 3, section 3), with the gradient of its expectation (Proposition 1).

    Args:
        x: Any shape.
        scale: The step; positive; broadcasts against `x`.
        noise: Mean and standard deviation of the noise in steps, 0-dimensional.
        quantizer: What tells levels, family and strategy.
        scale_gradient: Factor of the gradient with respect to `scale`.

    Returns:
        Multiples of `scale`, float32, shaped as `x`.
    """
    settings = (quantizer.codebook, quantizer.noise, quantizer.strategy, scale_gradient, scale.requires_grad)
    out: Tensor = _FakeQuantize.apply(x, scale, *noise, *settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        mean: Tensor,
        std: Tensor,
        codebook: Codebook,
        noise: Noise,
        strategy: Strategy,
        scale_gradient: float,
        learns_scale: bool,
    ) -> Tensor:
        u = x.float() / scale
        v = u - mean  # in v the thresholds stand where the codebook says
        slope = torch.zeros_like(v)
        for jump, threshold in zip(codebook.jumps, codebook.thresholds, strict=True):
            slope.add_(noise.density_(threshold - v, std), alpha=jump)
        if strategy is Strategy.EXPECTATION:
            level = _expectation(v, std, codebook, noise)
        else:
            level = codebook.level(v if strategy is Strategy.MODE else v - noise.sample_like(v) * std)
        scale_slope = u.mul_(slope).sub_(level).mul_(-scale_gradient) if learns_scale else None
        ctx.save_for_backward(slope, scale_slope)
        ctx.scale_shape, ctx.dtype = scale.shape, x.dtype
        return level * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, scale_slope = ctx.saved_tensors
        grad_scale = None if scale_slope is None else (grad * scale_slope).sum_to_size(ctx.scale_shape)
        return (grad * slope).to(ctx.dtype), grad_scale, None, None, None, None, None, None, None


def _expectation(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """E[σ(v − ν)] = q_0 + Σ_k (q_k − q_{k−1}) · F(v − θ_k), F the distribution function of the noise."""
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, 1.0)
    level = torch.full_like(v, codebook.values[0])
    for jump, threshold in zip(codebook.jumps, codebook.thresholds, strict=True):
        past = v - threshold
        level.add_(torch.where(is_noisy, noise.cdf(past / divisor), (past >= 0).to(v.dtype)), alpha=jump)
    return level


def quantizer_of(integer_type: Any, *settings: Any, **options: Any) -> Quantizer:
    """The quantizer of a type; arguments are those of `Quantizer`."""
    kind = CodebookQuantizer if integer_type.levels else Quantizer
    return kind(integer_type, *settings, **options)
