"""Layer maps that stay in floats where a user asks for it: float islands between integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ana_fx.layers.layer_map import Phase
from ana_fx.layers.norms import ChannelAffine
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.numerics.scale_search import positive
from ana_fx.requantizers.staircase import along
from ana_fx.target import LayerNeeds

__all__ = ["FloatForm", "FloatMap"]


@dataclass(frozen=True)
class FloatForm:
    """A float layer map as it is deployed: y = clip(gain · S(x) + offset), where `gain` and `offset` may be left out.

    Args:
        weight: The weight, a batch norm and a line folded into it; None for an operator without one.
        bias: The bias, likewise.
        gain: What follows an operator without a weight, [channels] or [1].
        offset: Likewise.
        clip_range: What the activation lets through.
    """

    weight: Tensor | None
    bias: Tensor | None
    gain: Tensor | None
    offset: Tensor | None
    clip_range: ClipRange


class FloatMap(OperatorMap):
    """An operator map on reals, with a float weight and no scale; an output quantizer follows where integers go on.

    What it computes is deployed in float32. Runtimes sum floats in an order of their own, so nothing about it is
    proven: two evaluations may differ in the last bits, and levels behind them by one where they differ across a
    threshold.
    """

    stays_float = True

    @classmethod
    def of(cls, layer_map: OperatorMap) -> FloatMap:
        """The float twin of an operator map that has no quantizers yet, with its parameters."""
        twin = cls(
            layer_map.operator, layer_map.weight, layer_map.bias, layer_map.norm, layer_map.line, layer_map.clip_range
        )
        return twin.train(layer_map.training)  # type: ignore[return-value]  # train() returns what it is called on

    @property
    def learns_weight(self) -> bool:
        """Whether it has a weight: its quantizer is that of the output alone."""
        return self.weight is not None

    def needs(self) -> LayerNeeds:
        """Floats, and the type of its output if it has one."""
        output = None if self.output_quantizer is None else self.output_quantizer.integer_type
        return LayerNeeds(self.kind, output=output, num_axes=self.operator.num_spatial_axes, leaves_float=True)

    def forward(self, *operands: Tensor) -> Tensor:
        """Reals in, reals out; those of an output quantizer are multiples of its scale."""
        if self.output_quantizer is not None:
            return super().forward(*operands)
        if not self.training:
            return self.deployed(operands, self.current_form((), operands[0].shape), ())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.phase is Phase.LEARNING):
            return self.real(operands)

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> FloatForm:  # type: ignore[override]  # no integers
        """The weight and the bias with the norm and the line folded into them."""
        self._check_calibrated()
        quantizer = self.output_quantizer
        clip_range = self.clip_range if quantizer is None else quantizer.clip_range
        if self.norm is None and self.line == (1.0, 0.0):
            return FloatForm(self.weight, self.bias, None, None, clip_range)
        like = next(each for each in (*self.parameters(), *self.buffers(), torch.ones(1)))
        gain, offset = self._gain_and_offset(torch.ones(1, dtype=torch.float64, device=like.device))
        if self.weight is None:
            return FloatForm(None, None, gain.float(), offset.float(), clip_range)
        weight = (self.weight.double() * along(gain, 0, self.weight.ndim)).float()
        bias = offset.float().expand(len(weight)).clone()
        return FloatForm(weight, bias, None, None, clip_range)

    def narrowed(self, form: FloatForm, input_shape: tuple[int, ...]) -> FloatForm:  # type: ignore[override]  # no integers
        """The form as it is."""
        return form

    def deployed(self, tensors: tuple[Tensor, ...], form: FloatForm, scales: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]  # no integers
        """The form on reals in float32, then the nearest levels times the scale, rounded as QuantizeLinear does."""
        with torch.autocast(tensors[0].device.type, enabled=False):
            y = self.operator.real(tuple(x.float().contiguous() for x in tensors), form.weight, form.bias)
            if form.gain is not None and form.offset is not None:
                y = y * along(form.gain, 1, y.ndim) + along(form.offset, 1, y.ndim)
            if form.clip_range != ClipRange():
                y = y.clamp(form.clip_range.minimum, form.clip_range.maximum)
            if self.output_quantizer is None:
                return y
            integer_type, scale = self.output_quantizer.integer_type, positive(self.output_quantizer.scale)
            levels = torch.round(y / scale).nan_to_num(nan=float(integer_type.qmin))
            return levels.clamp(integer_type.qmin, integer_type.qmax) * scale

    def layer(self) -> OperatorMap:
        """What a program holds of it: the form as an operator map without quantizers, whose numbers are the same."""
        form = self.integer_form((), ())
        weight, bias, gain, offset = (
            None if each is None else nn.Parameter(each.detach().clone(), requires_grad=False)
            for each in (form.weight, form.bias, form.gain, form.offset)
        )
        norm = None if gain is None else ChannelAffine(gain, offset, 1)
        return OperatorMap(self.operator, weight, bias, norm, clip_range=form.clip_range).eval()
