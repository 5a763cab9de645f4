"""Layer maps of an operator: weights, exact accumulators, and a staircase with everything else inside."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ana_fx.errors import UnsupportedError
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.kernels.kernel_table import kernel_of
from ana_fx.layers.handed import Handed
from ana_fx.layers.layer_map import LayerMap, Phase, levels_of
from ana_fx.layers.norm_and_quantizer import are_one, normalized_and_quantized
from ana_fx.layers.norms import ChannelAffine, Norm, gain_and_offset, standard_numbers
from ana_fx.layers.quantizers import ClipRange, Quantizer
from ana_fx.layers.recomputed_weight import is_recomputed, without_keeping
from ana_fx.numerics.integer_type import EXACT_FLOAT32, IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.coefficients import Operands
from ana_fx.requantizers.kernel_fits import KERNEL_FITS
from ana_fx.requantizers.line_fit import LineFit, ShiftArithmetic, fit_shift
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import Staircase, along, integer_dtype
from ana_fx.requantizers.threshold_staircase import ThresholdStaircase, fit_thresholds
from ana_fx.target import LayerNeeds

__all__ = ["OperatorMap"]

_LARGEST_BIAS = 2**29
_LARGEST_SUM = 2**31 - 1 - _LARGEST_BIAS
_WIDE = 64


class OperatorMap(LayerMap):
    """An operator with optional batch norm, scalar factor and clipping activation, then a quantizer.

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
        self.handed = Handed()
        self.shift_arithmetic: ShiftArithmetic | None = None  # None: the formula of `requantizer`
        self.requantizer = Requantizer.QLINEAR

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

    @property
    def kind(self) -> str:
        """That of the operator."""
        return self.operator.kind

    @property
    def num_gains(self) -> int:
        """The slopes of its requantizer: 1, or one for each channel."""
        if self.output_quantizer is None:
            return 1
        if self.norm is not None and self.norm.weight is not None:
            return int(self.norm.weight.numel())
        return 1 if self.weight_quantizer is None else self.weight_quantizer.scale.numel()

    @property
    def is_bare(self) -> bool:
        """Whether nothing follows the operator, whose accumulators can be logits."""
        has_tail = self.norm is not None or (self.line, self.clip_range) != ((1.0, 0.0), ClipRange())
        return self.operator.can_be_logits and not has_tail

    @property
    def are_logits(self) -> bool:
        """Whether it gives logits where nobody says what its output is."""
        return self.operator.are_logits and self.is_bare

    @property
    def aligns_inputs(self) -> bool:
        """As its operator."""
        return self.operator.aligns_inputs

    @property
    def keeps_inputs(self) -> bool:
        """As its operator."""
        return self.operator.keeps_inputs

    @property
    def has_float_form(self) -> bool:
        """As its operator."""
        return self.operator.has_float_form

    def channel_axis(self, rank: int) -> int:
        """That of its operator."""
        return self.operator.channel_axis(rank)

    def needs(self) -> LayerNeeds:
        """With its weight, its slopes, its windows and its activation."""
        quantizer = self.weight_quantizer
        return replace(
            super().needs(),
            weight=None if quantizer is None else quantizer.integer_type,
            num_gains=self.num_gains,
            num_axes=self.operator.num_spatial_axes,
            leaves_float=not self.input_types,
            leaves_logits=bool(self.input_types) and self.output_quantizer is None,
            clips_negative=-math.inf < self.clip_range.minimum < 0,
        )

    def is_nonnegative(self, *, inputs_are: bool) -> bool:
        """What its activation clips at zero, and what is so without it."""
        return self.clip_range.minimum == 0 or self.is_nonnegative_inside(inputs_are=inputs_are)

    def is_nonnegative_inside(self, *, inputs_are: bool) -> bool:
        """What of nonnegative numbers has no offset and no negative factor."""
        factor, offset = self.line
        return inputs_are and self.operator.keeps_sign and self.norm is None and factor >= 0 and offset >= 0

    def weight_type(self, wanted: IntegerType) -> IntegerType:
        """The type of its weight, given what the precision says."""
        return wanted

    def settle_scale(self, quantizer: Quantizer) -> None:
        """The scale that fits the normal numbers which a norm gives out."""
        if self.norm is not None or self.operator.is_standardized:
            numbers, weights = standard_numbers(self.norm)
            quantizer.calibrate(numbers * self.line[0] + self.line[1], weights)

    def train(self, mode: bool = True) -> OperatorMap:
        """As in torch; the batch norm of a frozen layer map stays in eval mode."""
        super().train(mode)
        if self.norm is not None and self.phase in (Phase.FROZEN, Phase.DEPLOYED):
            self.norm.eval()
        return self

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The operator with its noisy weight, the norm, the line and the noisy output quantizer."""
        operator, (norm, quantizer) = self.operator, self._norm_and_quantizer()
        if not self.training:  # a float layer: its sums depend on where numbers lie, which the program may change
            tensors = tuple(x.contiguous() for x in tensors)
        if isinstance(norm, ChannelAffine) and operator.takes_channel_affine:
            y = operator.real(tensors, norm.weight, norm.bias)
        else:
            y = self._product(tensors)
            if norm is not None:
                self._check_channels(norm, y)
                if quantizer is not None and self.line == (1.0, 0.0) and are_one(norm, quantizer, y):
                    return normalized_and_quantized(norm, y, quantizer)
                y = norm(y)
        factor, offset = self.line
        y = y if factor == 1.0 else y * factor
        y = y if offset == 0.0 else y + offset
        if quantizer is not None:
            return quantizer(y)  # type: ignore[no-any-return]  # a module's call is untyped
        if self.clip_range == ClipRange():
            return y
        return y.clamp(self.clip_range.minimum, self.clip_range.maximum)

    def _norm_and_quantizer(self) -> tuple[nn.Module | None, Quantizer | None]:
        """Of its output; looked up where modules keep them, which is ten times as fast."""
        modules = self._modules
        return modules.get("norm"), modules.get("output_quantizer")  # type: ignore[return-value]  # it is a Quantizer

    def _product(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The operator with its noisy weight."""
        weight, bias = self.weight, self.bias
        handed = None if weight is None else self.handed.take_weight(weight)
        if handed is not None:
            return self.operator.real(tensors, handed, bias)
        quantizer = self.weight_quantizer
        if quantizer is None:
            return self.operator.real(tensors, weight, bias)
        assert weight is not None
        quantized = quantizer(weight)
        if not is_recomputed(weight, quantizer):
            return self.operator.real(tensors, quantized, bias)
        with without_keeping(quantized, weight, quantizer):
            return self.operator.real(tensors, quantized, bias)

    def _check_channels(self, norm: nn.Module, y: Tensor) -> None:
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and self.operator.channel_axis(y.ndim) != 1:
            raise UnsupportedError(
                f"a batch norm after a linear layer was given {y.ndim} axes, needed two: it normalises axis 1, the "
                f"layer's channels are the last axis; give prepare() example_inputs, then both are kept apart"
            )

    def deployed(self, tensors: tuple[Tensor, ...], form: IntegerForm, scales: tuple[Tensor, ...]) -> Tensor:
        """Exact accumulators through the staircase, or logits."""
        kernel = form.kernel
        if kernel is not None and kernel.finish is not None and kernel.takes(tensors):
            return kernel(tensors, scales)
        with torch.autocast(tensors[0].device.type, enabled=False):
            integer = integer_dtype(form.bound * self.factor)
            if kernel is None or kernel.finish is not None:
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
        """Coefficients, and the staircase into which everything behind the operator goes."""
        self._check_calibrated()
        y_scale = None if self.output_quantizer is None else positive(self.output_quantizer.scale)
        scales = tuple(positive(scale) for scale in scales)
        found = self.operator.coefficients(Operands(scales, input_shape, *self._levels_of_weight(), y_scale))
        bound = self._bound(input_shape)
        gain, offset = self._gain_and_offset(found.unit)
        if self.output_quantizer is None or y_scale is None:
            output_scale = (found.x_scale * (gain / self.factor).float()).reshape(())
            bias = torch.round(offset / output_scale.double()).clamp(-_LARGEST_BIAS, _LARGEST_BIAS).to(torch.int32)
            return IntegerForm(found, None, bound, output_scale, factor=self.factor, bias=bias)
        gain, offset = torch.broadcast_tensors(gain, offset)
        line = LineFit(gain, offset, found.x_scale, y_scale, self.output_quantizer.levels(), bound)
        staircase: Staircase | ThresholdStaircase
        codebook = self.output_quantizer.codebook
        if codebook is not None:
            staircase, sign = fit_thresholds(line, codebook)
        elif self.shift_arithmetic is None:
            if self.requantizer is Requantizer.EVERY_TFLITE:  # where these weights cannot come, kernels may disagree
                line = replace(line, bound=self._reach(found.integers, input_shape))
            staircase, sign = KERNEL_FITS[self.requantizer](line, self._factor_within(bound))
        else:
            if self.shift_arithmetic.bits < _WIDE:  # every bit counts: what these weights can reach, not any weights
                line = replace(line, bound=self._reach(found.integers, input_shape))
            staircase, sign = fit_shift(line, self.shift_arithmetic)
        if found.integers is None or not found.is_signed:
            return IntegerForm(found, sign, bound, y_scale, staircase)
        signed = replace(found, integers=found.integers * along(sign, 0, found.integers.ndim))
        return IntegerForm(signed, None, bound, y_scale, staircase)

    @torch.no_grad()
    def narrowed(self, form: IntegerForm, input_shape: tuple[int, ...]) -> IntegerForm:
        """With the kernel that computes it on a GPU, or the bound of these weights."""
        magnitude = 0 if self.weight_quantizer is None else self.weight_quantizer.integer_type.magnitude
        kernel = kernel_of(self.operator, form, self.input_types, magnitude)
        if kernel is not None or form.weight is None or form.bound < EXACT_FLOAT32:
            return replace(form, kernel=kernel)
        return replace(form, bound=int(self._reach(form.weight, input_shape).max()))

    def _levels_of_weight(self) -> tuple[Tensor | None, Tensor | None]:
        """The levels of the weight and its scale, float64, [channels] or [1]."""
        if self.weight_quantizer is None:
            return None, None
        assert self.weight is not None
        return self.weight_quantizer.quantize(self.weight), positive(self.weight_quantizer.scale).double().flatten()

    def _bound(self, input_shape: tuple[int, ...]) -> int:
        row = 0
        if self.weight_quantizer is not None:
            assert self.weight is not None
            num_terms = self.operator.integer_weight(self.weight)[0].numel()
            row = num_terms * self.weight_quantizer.integer_type.magnitude
        return self.operator.bound([each.magnitude for each in self.input_types], input_shape, row)

    def _factor_within(self, bound: int) -> int:
        """The head-room; less, but odd, where sums of that size would leave 32 bits: in the mean of a large image."""
        if self.weight is not None or bound * self.factor <= _LARGEST_SUM:
            return self.factor
        most = max(1, _LARGEST_SUM // bound)
        return most - (most % 2 == 0)

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
        if self.norm is not None:
            gain, offset = gain_and_offset(self.norm, gain, offset)
        return gain * self.line[0], offset * self.line[0] + self.line[1]
