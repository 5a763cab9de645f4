"""The quantizer of a codebook: levels and thresholds that need not be alike, down to one bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ana_fx.errors import PrecisionError
from ana_fx.layers.fake_quantize import LARGEST
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.codebook import Codebook, half_way
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.degrees import Gradient, GradientRule, Strategy
from ana_fx.schedule.noise import Noise

__all__ = ["CodebookQuantizer", "check_channels", "fake_quantize_codebook", "quantizer_of"]


_NEVER = 2.0**30  # times the scale


class CodebookQuantizer(Quantizer):
    """A K-quantizer with annealed noise (paper, equation 1). Its work is K − 1 comparisons a number, K at most 16.

    Noise is measured in the smallest distance of two levels: for −1 and 1 half a unit reaches from −1 to 1. Channels
    with thresholds of their own have one scale, which is searched as if these stood half-way between the levels.

    Args:
        channel_axis: Axis of the channels of what is quantised, −1 for the last.
    """

    rows: Tensor

    def __init__(self, *settings: Any, channel_axis: int = 1, **options: Any) -> None:
        super().__init__(*settings, **options)
        self.channel_axis = channel_axis
        thresholds = self.integer_type.rows if self.integer_type.num_channels is not None else ()
        rows = torch.tensor(thresholds, dtype=torch.float32).clamp(-_NEVER, _NEVER)  # densities far out are no NaN
        self.register_buffer("rows", rows, persistent=False)  # the state keeps the type

    def codebook_along(self, x: Tensor) -> Codebook:
        """The levels and thresholds for numbers shaped as `x`, moved by the static mean of the noise if it has one.

        Raises:
            PrecisionError: Channels have thresholds of their own, and `x` has another number of channels.
        """
        if self.rows.numel():
            check_channels(self.name, self.integer_type, x.shape[self.channel_axis])
            codebook = Codebook(self.integer_type.levels, self.rows.unbind(1))  # on the device already
            return self._moved(codebook).along(self.channel_axis, x.ndim)
        return self.codebook

    @property
    def codebook(self) -> Codebook:
        """The levels and thresholds of its type, moved by the static mean of the noise."""
        found = self.integer_type.codebook
        assert found is not None
        return self._moved(found)

    def _moved(self, codebook: Codebook) -> Codebook:
        """The thresholds of a codebook once the static mean of the noise has moved them."""
        return codebook.moved((self.rounding.offset - self.offset) * self.unit)

    @property
    def unit(self) -> int:
        """The unit of noise: the smallest distance of two levels."""
        levels = self.integer_type.levels
        return min(high - low for low, high in itertools.pairwise(levels))

    @property
    def _clip(self) -> tuple[float, float]:
        return -torch.inf, torch.inf

    @property
    def _all_levels(self) -> Codebook:
        found = self.integer_type.codebook
        assert found is not None
        return self._moved(Codebook(found.values, half_way(found.values)) if self.rows.numel() else found)

    def _filled(self, scale: Tensor) -> Tensor:
        return scale

    @torch.no_grad()
    def loses(self, x: Tensor) -> bool:
        """Whether numbers that differ all get one level."""
        least, most = torch.aminmax(x.float())
        steps = torch.stack((least, most)) / positive(self.scale)
        first, last = self._all_levels.level(steps).tolist()
        return bool(least < most) and first == last and not self.rows.numel()

    def level_of(self, x: Tensor) -> Tensor:
        """The levels of reals, float64, without noise, whatever the device."""
        found = self.integer_type.codebook
        assert found is not None
        there = tuple(each.to(x.device) if isinstance(each, Tensor) else each for each in found.thresholds)
        codebook = self._moved(Codebook(found.values, there)).along(self.channel_axis, x.ndim)
        return codebook.level(x / positive(self.scale).double().to(x.device))

    def quantize(self, x: Tensor) -> Tensor:
        """The levels of `x` without noise, as float32 integers."""
        return self.codebook_along(x).level(x.float() / positive(self.scale))

    def _noisy(self, x: Tensor, scale: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        factor = self.scale_gradient(x) if scale.requires_grad else 1.0
        noise = (mean * self.unit, std * self.unit)
        return fake_quantize_codebook(x, positive(scale), noise, self, factor)


def fake_quantize_codebook(
    x: Tensor, scale: Tensor, noise: tuple[Tensor, Tensor], quantizer: CodebookQuantizer, scale_gradient: float = 1.0
) -> Tensor:
    """A noisy K-quantizer (paper, eqs. 1 and 3, section 3), with the gradient of its expectation (Proposition 1).

    Args:
        x: Any shape.
        scale: The scale; positive; broadcasts against `x`.
        noise: Mean and standard deviation of the noise in steps, 0-dimensional.
        quantizer: What tells levels, family, strategy and gradient.
        scale_gradient: Factor of the gradient with respect to `scale`.

    Returns:
        Multiples of `scale`, float32, shaped as `x`.
    """
    if not torch.is_grad_enabled():
        v = x.float() / scale - noise[0]
        return _LEVELS[quantizer.strategy](v, noise[1], quantizer.codebook_along(x), quantizer.noise) * scale
    gradient = quantizer.gradient._replace(mean=quantizer.gradient.mean * quantizer.unit)
    settings = (quantizer.codebook_along(x), quantizer.noise, quantizer.strategy, gradient)
    factors = (scale_gradient, scale.requires_grad)
    out: Tensor = _FakeQuantize.apply(x, scale, *noise, *settings, *factors)  # type: ignore[no-untyped-call]  # torch leaves it untyped
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
        gradient: Gradient,
        scale_gradient: float,
        learns_scale: bool,
    ) -> Tensor:
        u = x.float() / scale
        v = u - mean  # in v the thresholds stand where the codebook says
        slope = _SLOPES[gradient.rule](v - gradient.mean, std, codebook, noise)
        level = _LEVELS[strategy](v, std, codebook, noise)
        scale_slope = None
        if learns_scale:
            finite = u.clamp_(-LARGEST, LARGEST)  # as in `fake_quantize`
            scale_slope = finite.mul_(slope).sub_(level).mul_(-scale_gradient)
        ctx.save_for_backward(slope, scale_slope)
        ctx.scale_shape, ctx.dtype = scale.shape, x.dtype
        return level * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, scale_slope = ctx.saved_tensors
        grad_scale = None if scale_slope is None else (grad * scale_slope).sum_to_size(ctx.scale_shape)
        return (grad * slope).to(ctx.dtype), grad_scale, *(None,) * 8


def _slope(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """The derivative of the expectation."""
    slope = torch.zeros_like(v)
    for jump, threshold in zip(codebook.jumps, codebook.thresholds, strict=True):
        slope.add_(noise.density_(threshold - v, std), alpha=jump)
    return slope


def _height(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """The derivative of the sum of ReLUs: how far v has come above the lowest level; 0 if there is no noise."""
    return (codebook.level(v) - codebook.values[0]) * (std > 0)


def _mode(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """The quantizer itself."""
    return codebook.level(v)


def _random(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """The quantizer of a draw of v − ν."""
    return codebook.level(v - noise.sample_like(v) * std)


def _expectation(v: Tensor, std: Tensor, codebook: Codebook, noise: Noise) -> Tensor:
    """E[σ(v − ν)] = q_0 + Σ_k (q_k − q_{k−1}) · F(v − θ_k), F the distribution function of the noise."""
    is_noisy = std > 0
    divisor = torch.where(is_noisy, std, 1.0)
    level = torch.full_like(v, codebook.values[0])
    for jump, threshold in zip(codebook.jumps, codebook.thresholds, strict=True):
        past = v - threshold
        level.add_(torch.where(is_noisy, noise.cdf(past / divisor), (past >= 0).to(v.dtype)), alpha=jump)
    return level


_Formula = Callable[[Tensor, Tensor, Codebook, Noise], Tensor]
_SLOPES: Mapping[GradientRule, _Formula] = {GradientRule.EXPECTATION: _slope, GradientRule.RELU: _height}
_LEVELS: Mapping[Strategy, _Formula] = {
    Strategy.EXPECTATION: _expectation,
    Strategy.MODE: _mode,
    Strategy.RANDOM: _random,
}


def check_channels(name: str, integer_type: IntegerType, num_channels: int) -> None:
    """Refuse thresholds of other channels than there are.

    Raises:
        PrecisionError: Their number is another.
    """
    if integer_type.num_channels not in (None, num_channels):
        raise PrecisionError(
            f"{name}: found {num_channels} channels and thresholds for each of {integer_type.num_channels}; "
            f"give this layer a row for each of its channels by Precision(overrides={{...}})"
        )


def quantizer_of(integer_type: Any, *settings: Any, **options: Any) -> Quantizer:
    """The quantizer of a type; arguments are those of `Quantizer`."""
    kind = CodebookQuantizer if integer_type.levels else Quantizer
    return kind(integer_type, *settings, **options)
