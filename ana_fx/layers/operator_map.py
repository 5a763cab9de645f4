"""Layer maps of an operator: weights, exact accumulators, and a staircase with everything else inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ana_fx.errors import UnsupportedError
from ana_fx.kernels.exact_maps import ExactNormalization, exact_normalization
from ana_fx.kernels.exact_products import Int8MatMul, Int8Sum, fits_int8, int8_products
from ana_fx.kernels.int8_convolution import Int8Convolution
from ana_fx.kernels.int8_levels import Finish
from ana_fx.layers.layer_map import LayerMap, Phase, levels_of
from ana_fx.layers.quantizers import ClipRange
from ana_fx.numerics.integer_type import EXACT_FLOAT32
from ana_fx.numerics.scale_search import positive
from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.sum import Sum
from ana_fx.requantizers.staircase import (
    LineFit,
    ShiftArithmetic,
    Staircase,
    along,
    fit_qlinear,
    fit_shift,
    integer_dtype,
)

__all__ = ["BatchNorm", "ChannelAffine", "IntegerForm", "Norm", "OperatorMap"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_LARGEST_BIAS = 2**29
_WIDE = 64


class ChannelAffine(nn.Module):
    """weight · x + bias for each channel: what follows a layer or group norm.

    Args:
        weight: [channels].
        bias: [channels], or None for zeros.
        channel_axis: Axis of the channels, −1 for the last.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, channel_axis: int) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.channel_axis = channel_axis

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        axis = self.channel_axis % x.ndim
        y = x * along(self.weight, axis, x.ndim)
        return y if self.bias is None else y + along(self.bias, axis, x.ndim)


Norm = BatchNorm | ChannelAffine
Kernel = Int8Convolution | Int8MatMul | Int8Sum | ExactNormalization


@dataclass(frozen=True)
class IntegerForm:
    """What an affine map deploys: integer coefficients, then a staircase or raw logits.

    Args:
        weight: Integer coefficients, signs of the channels folded in; None if there are none.
        sign: The sign of each channel's accumulator where no weight could take it, float32, [channels].
        bound: No accumulator exceeds this in absolute value, whatever the weights; once these are fixed, with them.
        output_scale: The real value of one unit of the output, float32.
        staircase: From accumulators to levels; None for a head, whose output is factor · acc + bias.
        factor: Head-room of a head.
        bias: Bias of a head, int32, [channels].
        kernel: What computes all or most of it on a GPU.
    """

    weight: Tensor | None
    sign: Tensor | None
    bound: int
    output_scale: Tensor
    staircase: Staircase | None = None
    factor: int = 1
    bias: Tensor | None = None
    kernel: Kernel | None = None


class _HandedWeight(NamedTuple):
    """A quantised weight, and what it was quantised from."""

    quantized: Tensor
    weight: Tensor
    version: int

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy quantises its own."""


class OperatorMap(LayerMap):
    """An affine map with optional batch norm, scalar factor and clipping activation, then a quantizer.

    Without an output quantizer it is a head whose integer output is the accumulator.

    Args:
        operator: The map.
        weight: Its weight.
        bias: Its bias, [channels].
        norm: What follows it for each channel.
        line: A factor and an offset that follow, on all channels.
        clip_range: What the activation lets through.
    """

    def __init__(
        self,
        operator: Operator,
        weight: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        norm: Norm | None = None,
        line: tuple[float, float] = (1.0, 0.0),
        clip_range: ClipRange = ClipRange(),
    ) -> None:
        super().__init__()
        self.operator = operator
        self.num_inputs = operator.num_inputs
        self.weight = weight
        self.bias = bias
        self.norm = norm
        self.line = line
        self.clip_range = clip_range
        self.factor = 1
        self._handed: _HandedWeight | None = None
        self.shift_arithmetic: ShiftArithmetic | None = None  # None: the formula of the QLinear operators

    @property
    def operation(self) -> str:
        """The map and what is fused into it."""
        parts = [type(self.operator).__name__.lower()]
        if self.norm is not None:
            parts.append("channel affine" if isinstance(self.norm, ChannelAffine) else "batch norm")
        if self.line != (1.0, 0.0):
            parts.append("line")
        if self.clip_range != ClipRange():
            parts.append(str(self.clip_range))
        return " + ".join(parts)

    def train(self, mode: bool = True) -> OperatorMap:
        """As in torch; the batch norm of a frozen layer map stays in eval mode."""
        super().train(mode)
        if self.norm is not None and self.phase in (Phase.FROZEN, Phase.DEPLOYED):
            self.norm.eval()
        return self

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """See the base class."""
        operator, norm = self.operator, self.norm
        if not self.training:  # a float layer: its sums depend on where numbers lie, which the program may change
            tensors = tuple(x.contiguous() for x in tensors)
        if isinstance(norm, ChannelAffine) and isinstance(operator, Normalization) and operator.has_channel_rows:
            y = operator.real(tensors, norm.weight, norm.bias)
        else:
            y = operator.real(tensors, self._noisy_weight(), self.bias)
            if norm is not None:
                self._check_channels(y)
                y = norm(y)
        factor, offset = self.line
        y = y if factor == 1.0 else y * factor
        y = y if offset == 0.0 else y + offset
        quantizer = self.output_quantizer
        if quantizer is not None:
            return quantizer(y)  # type: ignore[no-any-return]  # a module's call is untyped
        if self.clip_range == ClipRange():
            return y
        return y.clamp(self.clip_range.minimum, self.clip_range.maximum)

    def hand_weight(self, quantized: Tensor) -> None:
        """Take the weight that the next call of `real` needs, quantised already, unless it is written before."""
        assert self.weight is not None
        self._handed = _HandedWeight(quantized, self.weight, self.weight._version)

    def _noisy_weight(self) -> Tensor | None:
        weight, quantizer = self.weight, self.weight_quantizer
        if quantizer is None:
            return weight
        assert weight is not None
        handed = self._handed
        if handed is not None:
            self._handed = None
            if handed.weight is weight and handed.version == weight._version:
                return handed.quantized
        return quantizer(weight)  # type: ignore[no-any-return]  # a module's call is untyped

    def _check_channels(self, y: Tensor) -> None:
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm) and self.operator.channel_axis(y.ndim) != 1:
            raise UnsupportedError(
                f"a batch norm after a linear layer was given {y.ndim} axes, needed two: it normalises axis 1, the "
                f"layer's channels are the last axis; give prepare() example_inputs, then both are kept apart"
            )

    def deployed(self, tensors: tuple[Tensor, ...], form: IntegerForm, scales: tuple[Tensor, ...]) -> Tensor:
        """See the base class."""
        kernel = form.kernel
        if kernel is not None and kernel.finish is not None and kernel.takes(tensors):
            return kernel(tensors, scales)
        with torch.autocast(tensors[0].device.type, enabled=False):
            integer = integer_dtype(form.bound * self.factor)
            if not isinstance(kernel, Int8Convolution | Int8MatMul):
                levels = levels_of(tensors, scales)
                accumulator = accumulate(self.operator, levels, form.weight, bound=form.bound, integer=integer)
            else:
                accumulator = kernel(tensors, scales).to(integer)
            axis = self.operator.channel_axis(accumulator.ndim)
            if form.sign is not None:
                accumulator = accumulator * along(form.sign.to(accumulator.dtype), axis, accumulator.ndim)
            if form.staircase is not None:
                return form.staircase.level(accumulator, axis) * form.output_scale
            assert form.bias is not None
            logits = accumulator * form.factor + along(form.bias, axis, accumulator.ndim)
            return logits.to(torch.float32) * form.output_scale

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> IntegerForm:
        """See the base class."""
        self._check_calibrated()
        y_scale = None if self.output_quantizer is None else positive(self.output_quantizer.scale)
        found = self.operator.coefficients(
            *self._levels_of_weight(), tuple(positive(scale) for scale in scales), y_scale, input_shape
        )
        bound = self._bound(input_shape)
        gain, offset = self._gain_and_offset(found.unit)
        if self.output_quantizer is None or y_scale is None:
            output_scale = (found.x_scale * (gain / self.factor).float()).reshape(())
            bias = torch.round(offset / output_scale.double()).clamp(-_LARGEST_BIAS, _LARGEST_BIAS).to(torch.int32)
            return IntegerForm(found.weight, None, bound, output_scale, factor=self.factor, bias=bias)
        gain, offset = torch.broadcast_tensors(gain, offset)
        line = LineFit(gain, offset, found.x_scale, y_scale, self.output_quantizer.levels(), bound)
        staircase: Staircase
        if self.shift_arithmetic is None:
            staircase, sign = fit_qlinear(line, self.factor)
        else:
            if self.shift_arithmetic.bits < _WIDE:  # every bit counts: what these weights can reach, not any weights
                line = replace(line, bound=self._reach(found.weight, input_shape))
            staircase, sign = fit_shift(line, self.shift_arithmetic)
        if found.weight is None or not self.operator.has_weight:
            return IntegerForm(found.weight, sign, bound, y_scale, staircase)
        return IntegerForm(found.weight * along(sign, 0, found.weight.ndim), None, bound, y_scale, staircase)

    @torch.no_grad()
    def narrowed(self, form: IntegerForm, input_shape: tuple[int, ...]) -> IntegerForm:
        """See the base class."""
        kernel = self._kernel(form)
        if kernel is not None or form.weight is None or form.bound < EXACT_FLOAT32:
            return replace(form, kernel=kernel)
        return replace(form, bound=int(self._reach(form.weight, input_shape).max()))

    def _kernel(self, form: IntegerForm) -> Kernel | None:
        """What computes the form on a GPU, in one go where its staircase can follow at once."""
        device, operator = form.output_scale.device, self.operator
        if isinstance(operator, Normalization):
            return exact_normalization(operator, form.weight, form.sign, form.staircase, form.output_scale)
        magnitude = 0 if self.weight_quantizer is None else self.weight_quantizer.integer_type.magnitude
        if not fits_int8(operator, device, self.input_types, magnitude, form.bound):
            return None
        if isinstance(operator, Sum | MatMul):
            finish = Finish.of(form.staircase, form.output_scale, 1)
            if not isinstance(operator, Sum):
                return int8_products(operator, None, self.input_types, finish, form.sign)
            has_all = finish is not None and form.sign is not None and form.weight is not None
            return Int8Sum(form.weight, form.sign, finish) if has_all else None  # type: ignore[arg-type]  # none is None
        assert form.weight is not None
        finish = None if form.sign is not None else Finish.of(form.staircase, form.output_scale, len(form.weight))
        return int8_products(operator, form.weight, self.input_types, finish)

    def _levels_of_weight(self) -> tuple[Tensor | None, Tensor | None]:
        """The levels of the weight and its scale, float64, [channels] or [1]."""
        if self.weight_quantizer is None:
            return None, None
        assert self.weight is not None
        return self.weight_quantizer.quantize(self.weight), positive(self.weight_quantizer.scale).double().flatten()

    def _bound(self, input_shape: tuple[int, ...]) -> int:
        num_terms = weight_magnitude = 0
        if self.weight_quantizer is not None:
            assert self.weight is not None
            num_terms = self.operator.integer_weight(self.weight)[0].numel()
            weight_magnitude = self.weight_quantizer.integer_type.magnitude
        magnitudes = tuple(each.magnitude for each in self.input_types)
        return self.operator.bound(num_terms, weight_magnitude, magnitudes, input_shape)

    def _reach(self, weight: Tensor | None, input_shape: tuple[int, ...]) -> Tensor:
        """The largest absolute accumulator of each channel, float64, [channels] or [1]."""
        ranges = [(each.qmin, each.qmax) for each in self.input_types]
        lowest, highest = self.operator.fixed(input_shape).accumulator_range(weight, ranges, input_shape)
        return torch.maximum(-lowest, highest).double()

    def _gain_and_offset(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and intercept of accumulator ↦ real output at input scale 1, float64, [channels] or [1]."""
        gain, offset = unit, torch.zeros_like(unit)
        if self.bias is not None:
            offset = self.bias.double()
        norm = self.norm
        if isinstance(norm, ChannelAffine):
            gain, offset = gain * norm.weight.double(), offset * norm.weight.double()
            offset = offset if norm.bias is None else offset + norm.bias.double()
        elif norm is not None:
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None
            assert variance is not None
            factor = 1.0 / torch.sqrt(variance.double() + norm.eps)
            offset = (offset - mean.double()) * factor
            if norm.affine:
                factor = factor * norm.weight.double()
                offset = offset * norm.weight.double() + norm.bias.double()
            gain = gain * factor
        return gain * self.line[0], offset * self.line[0] + self.line[1]
