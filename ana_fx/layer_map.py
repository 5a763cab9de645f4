"""The layer map φ = σ∘S, the unit of the prepared graph, with its two faces.

In training it computes on reals: affine map, batch norm, noisy quantizer. In eval mode it computes
what will be deployed: levels, exact accumulators, the staircase. The tensors between layer maps are
reals in both modes, multiples of their quantizer's scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from ana_fx.accumulate import accumulate
from ana_fx.affine import Affine, Sum
from ana_fx.errors import CalibrationError, UnsupportedError
from ana_fx.quantizers import UNKNOWN_SCALE, ClipRange, Quantizer
from ana_fx.scale import positive
from ana_fx.schedule import AnnealingRange
from ana_fx.staircase import LineFit, Staircase, along, fit_qlinear, fit_shift, integer_dtype

__all__ = ["BatchNorm", "IntegerForm", "LayerMap", "Phase"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_SUM_DIVISOR = 127  # odd, so that no sum of integers lies half-way between two levels
_LARGEST_COEFFICIENT = 2**12 - 1
_LARGEST_BIAS = 2**29


class Phase(Enum):
    """What a layer map does in training mode."""

    LEARNING = "learning"
    UNRECORDED = "unrecorded"  # noisy still, but nothing that it learnt could reach the output
    FROZEN = "frozen"  # without noise, parameters and statistics fixed
    DEPLOYED = "deployed"  # frozen, and computing exactly as eval mode does


@dataclass(frozen=True)
class IntegerForm:
    """What a layer map deploys: integer coefficients, then a staircase or raw logits.

    Args:
        weight: Integer coefficients as float32, signs of the channels folded in; None if there are none.
        sign: The sign of each channel's accumulator where no weight could take it, float32, [channels].
        bound: No accumulator exceeds this in absolute value, whatever the weights.
        output_scale: The real value of one unit of the output, float32.
        staircase: From accumulators to levels; None for a head, whose output is factor · acc + bias.
        factor: Head-room of a head.
        bias: Bias of a head, int32, [channels].
    """

    weight: Tensor | None
    sign: Tensor | None
    bound: int
    output_scale: Tensor
    staircase: Staircase | None = None
    factor: int = 1
    bias: Tensor | None = None


class LayerMap(nn.Module):
    """An affine map with optional batch norm and activation, then a quantizer.

    Without an output quantizer it is a head whose integer output is the accumulator; without any
    quantizer it is the float layer that it was made from.

    `forward(*tensors, *scales)` takes the input tensors and, once quantised, the scale of each.
    """

    def __init__(
        self,
        affine: Affine,
        weight: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        norm: BatchNorm | None = None,
        clip_range: ClipRange = ClipRange(),
    ) -> None:
        super().__init__()
        self.affine = affine
        self.weight = weight
        self.bias = bias
        self.norm = norm
        self.clip_range = clip_range
        self.weight_quantizer: Quantizer | None = None
        self.output_quantizer: Quantizer | None = None
        self.input_magnitudes: tuple[int, ...] = ()
        self.factor = 1
        self.is_shift = False
        self.annealing_range: AnnealingRange | None = None
        self.leaves_model = False
        self.phase = Phase.LEARNING
        self._form: IntegerForm | None = None
        self._anchor: Tensor | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether it has any quantizer."""
        return self.weight_quantizer is not None or self.output_quantizer is not None

    def quantizers(self) -> list[Quantizer]:
        """Its quantizers: of the weight, of the output."""
        return [q for q in (self.weight_quantizer, self.output_quantizer) if q is not None]

    def forward(self, *operands: Tensor) -> Tensor:
        """Reals in, reals out."""
        num_inputs = self.affine.num_inputs
        tensors, scales = operands[:num_inputs], operands[num_inputs:]
        if not self.is_quantized or (self.training and self.phase is Phase.LEARNING):
            return self.real(tensors)
        if not self.training:
            return self.deployed(tensors, self.integer_form(scales, tuple(tensors[0].shape)), scales)
        with torch.no_grad():
            if self.phase is Phase.DEPLOYED and all(quantizer.is_calibrated for quantizer in self.quantizers()):
                y = self.deployed(tensors, self._fixed_form(tensors, scales), scales)
            else:
                y = self.real(tensors)
        return y if self._anchor is None else y + self._anchor

    def set_phase(self, phase: Phase) -> None:
        """Enter a phase of training."""
        if phase is not self.phase:
            self.phase = phase
            self._form = None
            self._set_anchor()
            self.train(self.training)

    def _set_anchor(self) -> None:
        """Let an output that nothing learns any more depend on a zero, so that the user's backward() has an end."""
        is_needed = self.leaves_model and self.phase is not Phase.LEARNING
        device = next((tensor.device for tensor in self.buffers()), None)
        self._anchor = torch.zeros((), device=device, requires_grad=True) if is_needed else None

    def train(self, mode: bool = True) -> LayerMap:
        """As in torch; the batch norm of a frozen layer map stays in eval mode."""
        super().train(mode)
        if self.norm is not None and self.phase in (Phase.FROZEN, Phase.DEPLOYED):
            self.norm.eval()
        return self

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The map on reals, with noisy quantizers if it has any."""
        weight = self.weight
        if self.weight_quantizer is not None:
            assert weight is not None
            weight = self.weight_quantizer(weight)
        y = self.affine.real(tensors, weight, self.bias)
        if self.norm is not None:
            self._check_channels(y)
            y = self.norm(y)
        if self.output_quantizer is not None:
            return self.output_quantizer(y)  # type: ignore[no-any-return]  # a module's call is untyped
        if self.clip_range == ClipRange():
            return y
        return y.clamp(self.clip_range.minimum, self.clip_range.maximum)

    def _fixed_form(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> IntegerForm:
        """The integer form of parameters that do not change any more, computed once."""
        if torch.compiler.is_compiling():  # a compiled graph does not keep Python objects
            return self.integer_form(scales, tuple(tensors[0].shape))
        if self._form is None:
            self._form = self.integer_form(scales, tuple(tensors[0].shape))
        return self._form

    def _check_channels(self, y: Tensor) -> None:
        if self.affine.channel_axis(y.ndim) != 1:
            raise UnsupportedError(
                f"a batch norm after a linear layer was given {y.ndim} axes, needed two: it normalises axis 1, the "
                f"layer's channels are the last axis; give prepare() example_inputs, then both are kept apart"
            )

    def deployed(self, tensors: tuple[Tensor, ...], form: IntegerForm, scales: tuple[Tensor, ...]) -> Tensor:
        """An integer form on the levels of `tensors`, times the output's scale."""
        with torch.autocast(tensors[0].device.type, enabled=False):
            levels = tuple(torch.round(x.float() / positive(s)) for x, s in zip(tensors, scales, strict=True))
            accumulator = accumulate(
                self.affine,
                levels,
                form.weight,
                bound=form.bound,
                integer=integer_dtype(form.bound * self.factor),
            )
            axis = self.affine.channel_axis(accumulator.ndim)
            if form.sign is not None:
                accumulator = accumulator * along(form.sign.to(accumulator.dtype), axis, accumulator.ndim)
            if form.staircase is not None:
                return form.staircase.level(accumulator, axis) * form.output_scale
            assert form.bias is not None
            logits = accumulator * form.factor + along(form.bias, axis, accumulator.ndim)
            return logits.to(torch.float32) * form.output_scale

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> IntegerForm:
        """The integers that the current parameters stand for.

        Args:
            scales: The scale of each input.
            input_shape: Shape of the first input.

        Raises:
            CalibrationError: A scale is not known yet.
        """
        for quantizer in self.quantizers():
            if not quantizer.is_calibrated:
                raise CalibrationError(UNKNOWN_SCALE.format("a layer's quantizer"))
        x_scale, weight, unit = self._coefficients(tuple(positive(scale) for scale in scales))
        bound = self._bound(weight, input_shape)
        gain, offset = self._gain_and_offset(unit / self.affine.divisor(input_shape))
        if self.output_quantizer is None:
            output_scale = (x_scale * (gain / self.factor).float()).reshape(())
            bias = torch.round(offset / output_scale.double()).clamp(-_LARGEST_BIAS, _LARGEST_BIAS).to(torch.int32)
            return IntegerForm(weight, None, bound, output_scale, factor=self.factor, bias=bias)
        gain, offset = torch.broadcast_tensors(gain, offset)
        y_scale = positive(self.output_quantizer.scale)
        line = LineFit(gain, offset, x_scale, y_scale, self.output_quantizer.levels(), bound)
        staircase, sign = fit_shift(line) if self.is_shift else fit_qlinear(line, self.factor)
        if weight is None or not self.affine.has_weight:
            return IntegerForm(weight, sign, bound, y_scale, staircase)
        return IntegerForm(weight * along(sign, 0, weight.ndim), None, bound, y_scale, staircase)

    def _coefficients(self, scales: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None, Tensor]:
        """The input scale, the integer coefficients, and the real value of one of their units."""
        if self.weight_quantizer is not None:
            assert self.weight is not None
            weight_scale = positive(self.weight_quantizer.scale).double().flatten()
            return scales[0], self.weight_quantizer.quantize(self.weight), weight_scale
        one = torch.ones(1, dtype=torch.float64, device=scales[0].device)
        if not isinstance(self.affine, Sum):
            return scales[0], None, one
        assert self.output_quantizer is not None
        y_scale = positive(self.output_quantizer.scale)  # one accumulator unit is this part of a level
        coefficients = torch.round(torch.stack(scales).double() / y_scale.double() * _SUM_DIVISOR)
        return y_scale, coefficients.clamp(1, _LARGEST_COEFFICIENT).float(), one / _SUM_DIVISOR

    def _bound(self, weight: Tensor | None, input_shape: tuple[int, ...]) -> int:
        if isinstance(self.affine, Sum):
            return _LARGEST_COEFFICIENT * sum(self.input_magnitudes)
        if weight is None:
            return self.affine.divisor(input_shape) * self.input_magnitudes[0]
        assert self.weight_quantizer is not None
        return weight[0].numel() * self.weight_quantizer.integer_type.magnitude * self.input_magnitudes[0]

    def _gain_and_offset(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and intercept of accumulator ↦ real output at input scale 1, float64, [channels] or [1]."""
        gain, offset = unit, torch.zeros_like(unit)
        if self.bias is not None:
            offset = self.bias.double()
        if self.norm is not None:
            mean, variance = self.norm.running_mean, self.norm.running_var
            assert mean is not None
            assert variance is not None
            factor = 1.0 / torch.sqrt(variance.double() + self.norm.eps)
            offset = (offset - mean.double()) * factor
            if self.norm.affine:
                factor = factor * self.norm.weight.double()
                offset = offset * self.norm.weight.double() + self.norm.bias.double()
            gain = gain * factor
        return gain, offset

    def _apply(self, fn: Any, recurse: bool = True) -> LayerMap:
        self._form = None  # it would stay behind on the old device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._set_anchor()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self._form = None
        super()._load_from_state_dict(*args)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"{self.affine}, clip_range=[{self.clip_range.minimum}, {self.clip_range.maximum}]"
