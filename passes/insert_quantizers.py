"""Quantizers on inputs, weights and layer map outputs, with their first scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.affine import Linear, Sum
from ana_fx.capabilities import Capabilities
from ana_fx.errors import PrecisionError
from ana_fx.graph import location, module_of, unique_path
from ana_fx.layer_map import LayerMap
from ana_fx.numbers import IntegerType
from ana_fx.passes.dialect import is_reshape, is_shape, passes_levels
from ana_fx.passes.pass_ import Pass
from ana_fx.precision import Precision
from ana_fx.quantizers import ClipRange, InputQuantizer, Quantizer
from ana_fx.schedule import Schedule

__all__ = ["InsertQuantizers"]

_EXACT_LOGITS = 2**22  # below it, float32 logits are different where the integers are
_HEADROOM_BOUND = 2**29
_GAUSSIAN_SAMPLES, _GAUSSIAN_REACH = 127, 5.0
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class InsertQuantizers(Pass):
    """Quantise what flows into, through and out of every layer map.

    before   x -> layer map -> max pool -> layer map
    after    x -> input quantizer -> layer map(·, scale) -> max pool -> layer map(·, scale)

    Scales are explicit edges: a layer map takes the scale of each input as an argument. A weight that
    several layer maps share has one quantizer. Requires fused layer maps; leaves float what
    `precision` leaves float.

    Args:
        precision: Types of the tensors.
        schedule: Noise of the quantizers.
        capabilities: Limits of the target.
        example_inputs: Tensors that tell the sign and the shape of each input, or nothing.
    """

    name: ClassVar[str] = "insert-quantizers"
    precision: Precision
    schedule: Schedule
    capabilities: Capabilities
    example_inputs: tuple[Any, ...] = ()

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        sources: dict[Node, _Source] = {}  # for each node that carries levels, where they come from
        weight_quantizers: dict[tuple[int, bool], Quantizer] = {}
        placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
        for index, node in enumerate(placeholders):
            if not node.users:
                continue
            example = self.example_inputs[index] if index < len(self.example_inputs) else None
            call = self._quantize_input(gm, node, example)
            sources[call] = _Source(call, f"{call.target}.scale", _module(call, InputQuantizer).integer_type)
        for node in list(gm.graph.nodes):
            module = module_of(node)
            if isinstance(module, LayerMap):
                self._quantize_layer_map(gm, node, module, sources, weight_quantizers)
            elif passes_levels(node) and node.all_input_nodes[0] in sources:
                sources[node] = sources[node.all_input_nodes[0]]
        return True

    def _quantize_input(self, gm: GraphModule, node: Node, example: Any) -> Node:
        seen = example if isinstance(example, Tensor) else node.meta.get("samples")
        wanted = self.precision.input
        if isinstance(wanted, IntegerType):
            integer_type = wanted
        else:
            is_nonnegative = seen is not None and bool((seen >= 0).all())
            integer_type = IntegerType(bits=8, signed=not is_nonnegative)
        quantizer = InputQuantizer(integer_type, self.schedule).train(gm.training)
        shape = tuple(example.shape[1:]) if isinstance(example, Tensor) else node.meta.get("sample_shape")
        if shape is not None:
            quantizer.remember_shape(shape)
        if "samples" in node.meta:
            quantizer.calibrate(node.meta["samples"])
        path = unique_path(gm, f"{node.name}_quantizer")
        gm.add_submodule(path, quantizer)
        with gm.graph.inserting_after(node):
            call = gm.graph.call_module(path, (node,))
        node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call and not is_shape(user))
        return call

    def _quantize_layer_map(
        self,
        gm: GraphModule,
        node: Node,
        layer_map: LayerMap,
        sources: dict[Node, _Source],
        weight_quantizers: dict[tuple[int, bool], Quantizer],
    ) -> None:
        path = str(node.target)
        precision = self.precision.of(path)
        output = _output(node, layer_map, precision)
        if output == "float":
            return
        inputs = [sources[source] for source in node.args if isinstance(source, Node)]
        magnitude = 1
        if layer_map.weight is not None:
            key = (id(layer_map.weight), output == "int32")
            if key not in weight_quantizers:
                weight_quantizers[key] = self._weight_quantizer(layer_map.weight, precision, output == "int32")
            layer_map.weight_quantizer = weight_quantizers[key]
            magnitude = layer_map.weight_quantizer.integer_type.magnitude
        if output != "int32":
            layer_map.output_quantizer = self._output_quantizer(node, layer_map, precision, inputs, output)
            sources[node] = _Source(node, f"{path}.output_quantizer.scale", layer_map.output_quantizer.integer_type)
        layer_map.input_magnitudes = tuple(source.integer_type.magnitude for source in inputs)
        layer_map.factor = self._factor(layer_map, magnitude, inputs[0].integer_type)
        layer_map.is_shift = self.capabilities.shifts
        layer_map.leaves_model = output is not None
        layer_map.train(gm.training)
        with gm.graph.inserting_before(node):
            scales = tuple(gm.graph.get_attr(source.scale_path) for source in inputs)
        node.args = (*node.args, *scales)

    def _weight_quantizer(self, weight: nn.Parameter, precision: Precision, is_head: bool) -> Quantizer:
        shape = () if is_head else (weight.shape[0], *[1] * (weight.ndim - 1))
        quantizer = Quantizer(
            precision.weight,
            self.schedule,
            precision.rounding,
            scale_shape=shape,
            learn_scale=self.schedule.learn_scales,
        ).to(weight.device)
        quantizer.calibrate(weight)
        return quantizer

    def _output_quantizer(
        self, node: Node, layer_map: LayerMap, precision: Precision, inputs: list[_Source], output: str | None
    ) -> Quantizer:
        is_linear = layer_map.weight is None and layer_map.norm is None
        is_nonnegative = layer_map.clip_range.minimum == 0 or (
            is_linear and not any(source.integer_type.signed for source in inputs)
        )
        clip_range = layer_map.clip_range
        if output == "int8":
            integer_type = IntegerType(bits=8, signed=not is_nonnegative)
        else:
            integer_type = precision.activation_type(is_nonnegative)
            if precision.replaces_activation:
                clip_range = ClipRange()
        quantizer = Quantizer(
            integer_type,
            self.schedule,
            precision.rounding,
            clip_range,
            learn_scale=self.schedule.learn_scales,
        )
        if layer_map.norm is not None:
            quantizer.calibrate(*_gaussian(layer_map.norm))
        elif "samples" in node.meta:
            quantizer.calibrate(node.meta["samples"])
        return quantizer.to(_device(layer_map))

    def _factor(self, layer_map: LayerMap, magnitude: int, input_type: IntegerType) -> int:
        if isinstance(layer_map.affine, Sum):
            return 1  # its coefficients are fine enough
        factor = self.capabilities.headroom(magnitude, input_type)
        if layer_map.weight is None:
            return factor
        bound = layer_map.weight[0].numel() * magnitude * input_type.magnitude
        limit = _EXACT_LOGITS if layer_map.output_quantizer is None else _HEADROOM_BOUND
        factor = max(1, min(factor, limit // bound))
        return factor - (factor % 2 == 0)


@dataclass(frozen=True)
class _Source:
    """Where levels come from: the node, its scale and its type."""

    node: Node
    scale_path: str
    integer_type: IntegerType


def _module(node: Node, kind: type[InputQuantizer]) -> InputQuantizer:
    module = module_of(node)
    assert isinstance(module, kind)
    return module


def _output(node: Node, layer_map: LayerMap, precision: Precision) -> str | None:
    """How the output of a layer map leaves the model: int32, int8 or float; None if it does not."""
    if not _leaves_model(node):
        return None
    is_bare = layer_map.affine.has_weight and layer_map.norm is None and layer_map.clip_range == ClipRange()
    if precision.output == "auto":
        return "int32" if is_bare and isinstance(layer_map.affine, Linear) else "int8"
    if precision.output in ("int32", "float") and not is_bare:
        raise PrecisionError(
            f"{location(node)}: output={precision.output!r} needs a bare linear or convolutional last layer; "
            f"found batch norm, an activation or no weight in it; use output='int8'"
        )
    return precision.output


def _leaves_model(node: Node) -> bool:
    """Whether every reader is the output, possibly through reshapes."""
    readers = [user for user in node.users if not is_shape(user)]
    return bool(readers) and all(user.op == "output" or (is_reshape(user) and _leaves_model(user)) for user in readers)


def _gaussian(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch norm gives out, for each channel a normal of mean β and deviation |γ|: numbers and their weights."""
    grid = torch.linspace(-_GAUSSIAN_REACH, _GAUSSIAN_REACH, _GAUSSIAN_SAMPLES)
    density = torch.exp(-0.5 * grid * grid)
    if not norm.affine:
        return grid, density
    spread, center = norm.weight.detach().float().cpu(), norm.bias.detach().float().cpu()
    if float(spread.abs().max()) < _NO_SPREAD and float(center.abs().max()) < _NO_SPREAD:
        spread = torch.ones_like(spread)  # zero-initialised, as in residual networks: it will grow
    numbers = center[:, None] + spread[:, None] * grid
    return numbers.flatten(), density.expand_as(numbers).flatten()


def _device(layer_map: LayerMap) -> torch.device:
    tensors = [layer_map.weight, *layer_map.parameters()]
    return next((t.device for t in tensors if t is not None), torch.device("cpu"))
