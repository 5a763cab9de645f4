"""Quantizers on weights, and the arithmetic in which each operator map is deployed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.graph import calls_of
from ana_fx.layers.codebook_quantizer import quantizer_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.first_last_precision import precision_of
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.passes.quantization.sample_scales import scale_of_zeros
from ana_fx.precision.precision import Precision
from ana_fx.requantizers.line_fit import ShiftArithmetic
from ana_fx.schedule.schedule import Schedule
from ana_fx.target import Requantizer, Target

__all__ = ["QuantizeWeights"]

_EXACT_LOGITS = 2**22  # below it, float32 logits are different where the integers are
_HEADROOM_BOUND = 2**29


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Give every operator map the quantizer of its weight, and the arithmetic that the target deploys it in.

    before   layer map(·, scale) with a float weight
    after    layer map(·, scale) with weight quantizer, head-room and requantizer family

    A weight that several layer maps share has one quantizer, unless one of them is a head: its logits have one scale.
    Where kernels of the target add two products in 16 bits, levels stay within what cannot saturate next to the
    layer's inputs: ±63 next to 8-bit ones. Requires the quantizers of inputs and outputs; leaves float layers alone.

    Args:
        schedule: Noise of the quantizers.
        target: Where the model will run.
    """

    name: ClassVar[str] = "quantize-weights"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED
    schedule: Schedule
    target: Target

    def run(self, gm: GraphModule) -> bool:
        users: dict[tuple[int, bool], dict[str, OperatorMap]] = defaultdict(dict)
        is_changed = False
        for node, layer_map in calls_of(gm, OperatorMap):
            if not layer_map.input_types or layer_map.weight_quantizer is not None:  # float, or quantised before
                continue
            before = layer_map.shift_arithmetic, layer_map.factor
            layer_map.shift_arithmetic = self._shift_arithmetic(layer_map)
            if layer_map.shift_arithmetic is None:
                layer_map.requantizer = self.target.requantizer
                layer_map.operator = layer_map.operator.for_one_scale(self.target.aligned_sums)
            if layer_map.weight is not None:
                users[id(layer_map.weight), layer_map.output_quantizer is None][str(node.target)] = layer_map
            else:
                layer_map.factor = self._factor(layer_map)
            is_changed |= before != (layer_map.shift_arithmetic, layer_map.factor)
        for sharing in users.values():
            quantizer = self._quantizer(sharing, precision_of(gm))
            for layer_map in sharing.values():
                layer_map.weight_quantizer = quantizer.train(layer_map.training)
                layer_map.factor = self._factor(layer_map)
        gm.meta.setdefault("notes", []).extend(self._limit_notes(users.values()))
        return is_changed or bool(users)

    def _quantizer(self, sharing: dict[str, OperatorMap], wanted: Precision) -> Quantizer:
        """The quantizer of a weight, of the type of the first layer within what is safe for all."""
        path, first = next(iter(sharing.items()))
        precision, weight = wanted.of(path), first.weight
        assert weight is not None
        is_head = first.output_quantizer is None
        has_one_scale = is_head or first.operator.has_one_weight_scale or not self.target.per_channel
        quantizer = quantizer_of(
            first.weight_type(precision.weight).within(min(map(self._largest_weight, sharing.values()))),
            self.schedule,
            precision.rounding,
            scale_shape=() if has_one_scale else (weight.shape[0], *[1] * (weight.ndim - 1)),
            learn_scale=self.schedule.learn_scales and weight.requires_grad,  # of a frozen weight nothing learns
        ).to(weight.device)
        if not quantizer.calibrate(weight):
            quantizer.set_scale(scale_of_zeros(weight, quantizer))
        return quantizer

    def _largest_weight(self, layer_map: OperatorMap) -> int:
        operator, weight = layer_map.operator, layer_map.weight
        assert weight is not None
        is_depthwise = operator.is_depthwise(weight)
        return self.target.largest_weight(operator.kind, layer_map.input_types[0], is_depthwise=is_depthwise)

    def _shift_arithmetic(self, layer_map: OperatorMap) -> ShiftArithmetic | None:
        if self.target.requantizer is Requantizer.SHIFT:
            return ShiftArithmetic(self.target.requantizer_bits, self.target.common_shift)
        return None if self.target.requantizer in layer_map.operator.requantizers else ShiftArithmetic()

    def _factor(self, layer_map: OperatorMap) -> int:
        """By how much the stored weights are larger than the trained ones."""
        operator, input_type = layer_map.operator, layer_map.input_types[0]
        output = layer_map.output_quantizer
        if operator.largest_coefficient is not None and self.target.least_headroom > 1:
            return self.target.headroom(operator.kind, operator.largest_coefficient, input_type)
        if not operator.has_headroom or (output is not None and output.integer_type.levels):
            return 1
        if layer_map.weight is None or layer_map.weight_quantizer is None:
            return self.target.headroom(operator.kind, 1, input_type)
        weight_type = layer_map.weight_quantizer.integer_type
        magnitude = weight_type.magnitude
        factor = self.target.headroom(operator.kind, magnitude, input_type, weight_bits=weight_type.bits)
        bound = operator.integer_weight(layer_map.weight)[0].numel() * magnitude * input_type.magnitude
        limit = _EXACT_LOGITS if layer_map.output_quantizer is None else _HEADROOM_BOUND
        return self.target.factor_within(min(factor, limit // bound))

    def _limit_notes(self, users: Iterable[dict[str, OperatorMap]]) -> list[str]:
        """How many layer maps have less than eight bits of a weight, so that no kernel saturates."""
        quantizers = [layer_map.weight_quantizer for sharing in users for layer_map in sharing.values()]
        limits = [q.integer_type.limit for q in quantizers if q is not None and q.integer_type.limit is not None]
        if not limits:
            return []
        named = ", ".join(f"±{limit}" for limit in sorted(set(limits)))
        if self.target.least_headroom > 1:
            return [f"{len(limits)} layer map(s) keep weights within {named}, so that all kernels round them alike."]
        twin = " Target 'onnxruntime-vnni' has all 8 bits." if self.target.requantizer is Requantizer.QLINEAR else ""
        return [
            f"{len(limits)} layer map(s) keep weights within {named} (reduce_range): with more, x86 kernels without "
            f"VNNI saturate.{twin}"
        ]
