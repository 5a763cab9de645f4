"""Quantizers on inputs and layer map outputs, with their first scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import PrecisionError
from ana_fx.graph import layer_map_of, location, module_of, unique_path
from ana_fx.layers.codebook_quantizer import CodebookQuantizer, check_channels, quantizer_of
from ana_fx.layers.input_quantizers import ImageQuantizer, InputQuantizer
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import ClipRange, Quantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_shape, passes_levels
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.fusion.observation import observation_of
from ana_fx.passes.quantization.choose_types import Leaving, TensorPlan, choose_types
from ana_fx.passes.quantization.first_last_precision import precision_of
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.passes.quantization.sample_scales import scale_from_samples, settle_zeros
from ana_fx.passes.quantization.scale_groups import scale_groups
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.schedule.schedule import Schedule
from ana_fx.target import Target

__all__ = ["InsertQuantizers"]

_ANY_RANK = 4  # the channels of an operator are on axis 1 or on the last one, whatever the rank


@dataclass(frozen=True)
class InsertQuantizers(Pass):
    """Quantise what flows into and out of every layer map.

    before   x -> layer map -> max pool -> layer map
    after    x -> input quantizer -> layer map(·, scale) -> max pool -> layer map(·, scale)

    Scales are explicit edges: a layer map takes the scale of each input as an argument. Layer maps whose outputs
    are joined have one scale.
    Requires fused layer maps and requantizers; leaves float what its precision leaves float.

    Args:
        schedule: Noise of the quantizers.
        target: Where the model will run.
        example_inputs: Tensors that tell the sign and the shape of each input, or nothing.
    """

    name: ClassVar[str] = "insert-quantizers"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = QUANTIZED
    schedule: Schedule
    target: Target
    example_inputs: tuple[Any, ...] = ()

    def run(self, gm: GraphModule) -> bool:
        sources: dict[Node, _Source] = {}  # for each node that carries levels, where they come from
        placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
        for index, node in enumerate(placeholders):
            if not node.users:
                continue
            example = self.example_inputs[index] if index < len(self.example_inputs) else None
            call = self._quantize_input(gm, node, example)
            sources[call] = _Source(f"{call.target}.scale", _input_quantizer(call).integer_type)
        inputs = {call: source.integer_type for call, source in sources.items()}
        plans = choose_types(gm, precision_of(gm), inputs, holds_logits=self.target.holds_logits)
        self._insert_output_quantizers(gm, plans)
        for node in list(gm.graph.nodes):
            layer_map = layer_map_of(node)
            if layer_map is not None:
                self._connect(gm, node, layer_map, plans[node].leaving, sources)
            elif passes_levels(node):
                operands = [source for source in node.all_input_nodes if source in sources]
                if operands:
                    sources[node] = sources[operands[0]]
        return bool(sources or plans)

    def _insert_output_quantizers(self, gm: GraphModule, plans: dict[Node, TensorPlan]) -> None:
        """Give every layer map the output quantizer of its plan; what is joined shares its scale."""
        groups = scale_groups(gm, aligns_sums=self.target.aligned_sums)
        for group in groups:
            shared: dict[Node, Quantizer] = {}
            for node in group:
                layer_map, integer_type = layer_map_of(node), plans[node].integer_type
                if layer_map is None or integer_type is None:
                    continue
                quantizer = self._output_quantizer(layer_map, integer_type, precision_of(gm).of(str(node.target)))
                if isinstance(quantizer, CodebookQuantizer):
                    _settle_channels(node, layer_map, quantizer)
                samples = observation_of(node).samples
                if samples is not None and not layer_map.has_own_scale:
                    scale_from_samples(quantizer, samples)
                layer_map.output_quantizer = quantizer.to(_device(layer_map)).train(layer_map.training)
                if shared:
                    quantizer.share_scale(next(iter(shared.values())))
                shared[node] = quantizer
            settle_zeros(shared)
        gm.meta["scale_groups"] = [[str(node.target) for node in group] for group in groups if len(group) > 1]

    def _quantize_input(self, gm: GraphModule, node: Node, example: Any) -> Node:
        quantizer = self._input_quantizer(precision_of(gm).input, node, example).train(gm.training)
        shape = tuple(example.shape[1:]) if isinstance(example, Tensor) else observation_of(node).sample_shape
        if shape is not None:
            quantizer.remember_shape(shape)
        samples = observation_of(node).samples
        if samples is not None and not quantizer.is_calibrated:
            quantizer.calibrate(samples)
        path = unique_path(gm, f"{node.name}_quantizer")
        gm.add_submodule(path, quantizer)
        with gm.graph.inserting_after(node):
            call = gm.graph.call_module(path, (node,))
        node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call and not is_shape(user))
        return call

    def _input_quantizer(self, wanted: object, node: Node, example: Any) -> InputQuantizer:
        if isinstance(wanted, ImageInput):
            return ImageQuantizer(wanted, self.schedule)
        if isinstance(wanted, IntegerType):
            return InputQuantizer(wanted, self.schedule)
        seen = example if isinstance(example, Tensor) else observation_of(node).samples
        is_nonnegative = seen is not None and bool((seen >= 0).all())
        return InputQuantizer(IntegerType(bits=8, signed=not is_nonnegative), self.schedule)

    def _connect(
        self, gm: GraphModule, node: Node, layer_map: LayerMap, leaving: Leaving | None, sources: dict[Node, _Source]
    ) -> None:
        """Give a layer map the scales of its inputs."""
        if leaving is Leaving.FLOATS or (layer_map.stays_float and layer_map.output_quantizer is None):
            return
        if layer_map.output_quantizer is not None:
            sources[node] = _Source(f"{node.target}.output_quantizer.scale", layer_map.output_quantizer.integer_type)
        layer_map.set_leaves_model(leaving is not None, is_annealed=not self.schedule.is_static)
        layer_map.train(gm.training)
        if layer_map.stays_float or not layer_map.takes_scales:
            return
        operands = node.args[: layer_map.num_inputs]
        inputs = [sources[source] for source in operands if isinstance(source, Node)]
        layer_map.input_types = tuple(source.integer_type for source in inputs)
        with gm.graph.inserting_before(node):
            scales = tuple(gm.graph.get_attr(source.scale_path) for source in inputs)
        node.args = (*operands, *scales)

    def _output_quantizer(self, layer_map: LayerMap, integer_type: IntegerType, precision: Precision) -> Quantizer:
        """The output quantizer of a layer map, with a scale if the layer map tells one."""
        is_replaced = precision.replaces_activation and (integer_type.narrow or bool(integer_type.levels))
        quantizer = quantizer_of(
            integer_type,
            self.schedule,
            precision.rounding,
            ClipRange() if is_replaced else layer_map.clip_range,
            learn_scale=self.schedule.learn_scales and not layer_map.has_own_scale,
            fills_range=self.target.whole_ranges,
        )
        layer_map.settle_scale(quantizer)
        return quantizer


def _settle_channels(node: Node, layer_map: LayerMap, quantizer: CodebookQuantizer) -> None:
    """Tell a quantizer with thresholds for each channel where the channels of a layer map are.

    Raises:
        PrecisionError: It has none, or another number of them.
    """
    if quantizer.integer_type.num_channels is None:
        return
    axis = layer_map.channel_axis(_ANY_RANK)
    if axis is None:
        raise PrecisionError(f"{location(node)}: its output has no channels, found {quantizer.integer_type} for it")
    quantizer.channel_axis = 1 if axis == 1 else -1
    shape = observation_of(node).sample_shape
    if shape is not None:
        check_channels(location(node), quantizer.integer_type, (0, *shape)[quantizer.channel_axis])


@dataclass(frozen=True)
class _Source:
    """Where levels come from: their scale and their type."""

    scale_path: str
    integer_type: IntegerType


def _input_quantizer(node: Node) -> InputQuantizer:
    module = module_of(node)
    assert isinstance(module, InputQuantizer)
    return module


def _device(layer_map: LayerMap) -> torch.device:
    return next((t.device for t in layer_map.parameters()), torch.device("cpu"))
