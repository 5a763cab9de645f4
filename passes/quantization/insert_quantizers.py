"""Quantizers on inputs and layer map outputs, with their first scales."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import PrecisionError
from ana_fx.graph import constant_parameters, location, module_of, unique_path
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import Norm, OperatorMap
from ana_fx.layers.quantizers import ClipRange, ImageQuantizer, InputQuantizer, Quantizer
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.sum import Sum
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_movement, is_shape, passes_levels
from ana_fx.passes.quantization.sample_scales import scale_from_samples, settle_zeros
from ana_fx.passes.quantization.scale_groups import is_read_by_table, scale_groups
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.schedule.schedule import Schedule
from ana_fx.target import Target

__all__ = ["InsertQuantizers"]

_GAUSSIAN_SAMPLES, _GAUSSIAN_REACH = 127, 5.0
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class InsertQuantizers(Pass):
    """Quantise what flows into and out of every layer map.

    before   x -> layer map -> max pool -> layer map
    after    x -> input quantizer -> layer map(·, scale) -> max pool -> layer map(·, scale)

    Scales are explicit edges: a layer map takes the scale of each input as an argument. Layer maps whose outputs
    are joined have one scale.
    Requires fused layer maps and requantizers; leaves float what `precision` leaves float.

    Args:
        precision: Types of the tensors.
        schedule: Noise of the quantizers.
        target: Where the model will run.
        example_inputs: Tensors that tell the sign and the shape of each input, or nothing.
    """

    name: ClassVar[str] = "insert-quantizers"
    precision: Precision
    schedule: Schedule
    target: Target
    example_inputs: tuple[Any, ...] = ()

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        sources: dict[Node, _Source] = {}  # for each node that carries levels, where they come from
        placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
        for index, node in enumerate(placeholders):
            if not node.users:
                continue
            example = self.example_inputs[index] if index < len(self.example_inputs) else None
            call = self._quantize_input(gm, node, example)
            sources[call] = _Source(f"{call.target}.scale", _input_quantizer(call).integer_type)
        outputs = self._insert_output_quantizers(gm, sources)
        for node in list(gm.graph.nodes):
            module = module_of(node)
            if isinstance(module, LayerMap):
                self._connect(gm, node, module, outputs.get(node), sources)
            elif passes_levels(node):
                operands = [source for source in node.all_input_nodes if source in sources]
                if operands:
                    sources[node] = sources[operands[0]]
        notes = [(node.target, note) for node in gm.graph.nodes if (note := node.meta.pop("scale_note", None))]
        gm.meta.setdefault("notes", []).extend(f"{path}: {note}" for path, note in notes)
        return True

    def _insert_output_quantizers(self, gm: GraphModule, sources: dict[Node, _Source]) -> dict[Node, str | None]:
        """Give every layer map its output quantizer; for each how it leaves the model, if it does."""
        outputs = {node: _output(node, _layer_map(node), self.precision.of(str(node.target))) for node in _maps(gm)}
        types = self._output_types(gm, outputs, _nonnegative(gm, sources))
        groups = scale_groups(gm, aligns_sums=self.target.aligned_sums)
        for group in groups:
            shared: dict[Node, Quantizer] = {}
            for node in group:
                if node not in types:
                    continue
                quantizer = self._output_quantizer(node, _layer_map(node), types[node])
                if shared:
                    quantizer.share_scale(next(iter(shared.values())))
                shared[node] = quantizer
            settle_zeros(shared)
        gm.meta["scale_groups"] = [[str(node.target) for node in group] for group in groups if len(group) > 1]
        return outputs

    def _output_types(
        self, gm: GraphModule, outputs: dict[Node, str | None], nonnegative: set[Node]
    ) -> dict[Node, IntegerType]:
        """The type of each layer map that has a quantizer; what is joined has one."""
        types: dict[Node, IntegerType] = {}
        for group in scale_groups(gm):
            kinds = {
                node: self._output_type(node, _layer_map(node), node in nonnegative, outputs[node])
                for node in group
                if outputs[node] not in ("int32", "float")
            }
            bits = max((kind.bits for kind in kinds.values()), default=0)
            signed = any(kind.signed for kind in kinds.values())
            for node, kind in kinds.items():
                types[node] = kind if len(kinds) == 1 else IntegerType(bits, signed, narrow=kind.narrow and signed)
        return types

    def _quantize_input(self, gm: GraphModule, node: Node, example: Any) -> Node:
        quantizer = self._input_quantizer(node, example).train(gm.training)
        shape = tuple(example.shape[1:]) if isinstance(example, Tensor) else node.meta.get("sample_shape")
        if shape is not None:
            quantizer.remember_shape(shape)
        if "samples" in node.meta and not quantizer.is_calibrated:
            quantizer.calibrate(node.meta["samples"])
        path = unique_path(gm, f"{node.name}_quantizer")
        gm.add_submodule(path, quantizer)
        with gm.graph.inserting_after(node):
            call = gm.graph.call_module(path, (node,))
        node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call and not is_shape(user))
        return call

    def _input_quantizer(self, node: Node, example: Any) -> InputQuantizer:
        wanted = self.precision.input
        if isinstance(wanted, ImageInput):
            return ImageQuantizer(wanted, self.schedule)
        if isinstance(wanted, IntegerType):
            return InputQuantizer(wanted, self.schedule)
        seen = example if isinstance(example, Tensor) else node.meta.get("samples")
        is_nonnegative = seen is not None and bool((seen >= 0).all())
        return InputQuantizer(IntegerType(bits=8, signed=not is_nonnegative), self.schedule)

    def _connect(
        self,
        gm: GraphModule,
        node: Node,
        layer_map: LayerMap,
        output: str | None,
        sources: dict[Node, _Source],
    ) -> None:
        """Give a layer map the scales of its inputs."""
        if output == "float":
            return
        if layer_map.output_quantizer is not None:
            sources[node] = _Source(f"{node.target}.output_quantizer.scale", layer_map.output_quantizer.integer_type)
        layer_map.set_leaves_model(output is not None, is_annealed=not self.schedule.is_static)
        layer_map.train(gm.training)
        if isinstance(layer_map, ConstantMap):
            return
        operands = node.args[: layer_map.num_inputs]
        inputs = [sources[source] for source in operands if isinstance(source, Node)]
        layer_map.input_types = tuple(source.integer_type for source in inputs)
        with gm.graph.inserting_before(node):
            scales = tuple(gm.graph.get_attr(source.scale_path) for source in inputs)
        node.args = (*operands, *scales)

    def _output_type(self, node: Node, layer_map: LayerMap, is_nonnegative: bool, output: str | None) -> IntegerType:
        """The type of a layer map's output, if it shares its scale with no other."""
        precision = self.precision.of(str(node.target))
        if isinstance(layer_map, SoftmaxMap):
            return replace(precision.activation_type(True), signed=False, narrow=False)
        if output == "int8" or is_read_by_table(node) or isinstance(layer_map, ConstantMap):
            return IntegerType(bits=8, signed=not is_nonnegative)
        return precision.activation_type(is_nonnegative)

    def _output_quantizer(self, node: Node, layer_map: LayerMap, integer_type: IntegerType) -> Quantizer:
        """Give a layer map its output quantizer, with a scale if anything tells it."""
        precision = self.precision.of(str(node.target))
        clip_range = layer_map.clip_range if isinstance(layer_map, OperatorMap) else ClipRange()
        is_replaced = precision.replaces_activation and integer_type.narrow
        is_fixed = isinstance(layer_map, SoftmaxMap)
        quantizer = Quantizer(
            integer_type,
            self.schedule,
            precision.rounding,
            ClipRange() if is_replaced else clip_range,
            learn_scale=self.schedule.learn_scales and not is_fixed,
            fills_range=self.target.whole_ranges,
        )
        if is_fixed:
            quantizer.set_scale(torch.tensor(1.0 / integer_type.qmax))
        elif isinstance(layer_map, OperatorMap) and _is_normal(layer_map):
            numbers, weights = _gaussian(layer_map.norm)
            quantizer.calibrate(numbers * layer_map.line[0] + layer_map.line[1], weights)
        if "samples" in node.meta and not is_fixed:
            node.meta["scale_note"] = scale_from_samples(quantizer, node.meta["samples"])
        layer_map.output_quantizer = quantizer.to(_device(layer_map)).train(layer_map.training)
        return quantizer


@dataclass(frozen=True)
class _Source:
    """Where levels come from: their scale and their type."""

    scale_path: str
    integer_type: IntegerType


def _input_quantizer(node: Node) -> InputQuantizer:
    module = module_of(node)
    assert isinstance(module, InputQuantizer)
    return module


def _maps(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if isinstance(module_of(node), LayerMap)]


def _layer_map(node: Node) -> LayerMap:
    module = module_of(node)
    assert isinstance(module, LayerMap)
    return module


def _nonnegative(gm: GraphModule, sources: dict[Node, _Source]) -> set[Node]:
    """The nodes whose numbers are never negative, whatever the inputs."""
    nonnegative = {node for node, source in sources.items() if not source.integer_type.signed}
    for node in gm.graph.nodes:
        module = module_of(node)
        operands = [each for each in node.all_input_nodes if not is_shape(each) and each.op != "get_attr"]
        if isinstance(module, ConstantMap):
            holds = bool((node.meta["samples"] >= 0).all()) and not constant_parameters(node)
        elif isinstance(module, TableMap):
            holds = module.is_nonnegative
        elif isinstance(module, OperatorMap):
            holds = module.clip_range.minimum == 0 or (_keeps_sign(module) and nonnegative.issuperset(operands))
        elif passes_levels(node):
            holds = nonnegative.issuperset(operands)
        else:
            holds = isinstance(module, SoftmaxMap)
        if holds:
            nonnegative.add(node)
    return nonnegative


def _keeps_sign(layer_map: OperatorMap) -> bool:
    """Whether an affine map has no negative coefficient and no offset, whatever its parameters become."""
    operator = layer_map.operator
    if operator.has_weight or layer_map.norm is not None or isinstance(operator, Normalization):
        return False
    if isinstance(operator, Sum) and min(operator.factors) < 0:
        return False
    return layer_map.line[0] >= 0 and layer_map.line[1] >= 0


def _is_normal(layer_map: OperatorMap) -> bool:
    """Whether what a layer map quantises has a known mean and deviation in each channel."""
    return layer_map.norm is not None or isinstance(layer_map.operator, Normalization)


def _output(node: Node, layer_map: LayerMap, precision: Precision) -> str | None:
    """How the output of a layer map leaves the model: int32, int8 or float; None if it does not."""
    if not _leaves_model(node):
        return None
    is_bare = (
        isinstance(layer_map, OperatorMap)
        and isinstance(layer_map.operator, (Convolution, Linear))
        and layer_map.norm is None
        and (layer_map.line, layer_map.clip_range) == ((1.0, 0.0), ClipRange())
        and not _is_joined(node)
    )
    if precision.output == "auto":
        return (
            "int32"
            if is_bare and isinstance(layer_map, OperatorMap) and isinstance(layer_map.operator, Linear)
            else "int8"
        )
    if precision.output in ("int32", "float") and not is_bare:
        raise PrecisionError(
            f"{location(node)}: output={precision.output!r} needs a bare linear or convolutional last layer; "
            f"found batch norm, an activation, a join or no weight in it; use output='int8'"
        )
    return precision.output


def _leaves_model(node: Node) -> bool:
    """Whether every reader is the output, possibly through data movement."""
    readers = [user for user in node.users if not is_shape(user)]
    return bool(readers) and all(user.op == "output" or (is_movement(user) and _leaves_model(user)) for user in readers)


def _is_joined(node: Node) -> bool:
    """Whether a movement between a layer map and the output has other inputs too."""
    return any(
        is_movement(user) and (sum(not is_shape(each) for each in user.all_input_nodes) > 1 or _is_joined(user))
        for user in node.users
    )


def _gaussian(norm: Norm | None) -> tuple[Tensor, Tensor]:
    """What a norm gives out, for each channel a normal of mean β and deviation |γ|: numbers and their weights."""
    grid = torch.linspace(-_GAUSSIAN_REACH, _GAUSSIAN_REACH, _GAUSSIAN_SAMPLES)
    density = torch.exp(-0.5 * grid * grid)
    if norm is None or norm.weight is None:
        return grid, density
    spread = norm.weight.detach().float().cpu()
    center = torch.zeros_like(spread) if norm.bias is None else norm.bias.detach().float().cpu()
    if float(spread.abs().max()) < _NO_SPREAD and float(center.abs().max()) < _NO_SPREAD:
        spread = torch.ones_like(spread)  # zero-initialised, as in residual networks: it will grow
    numbers = center[:, None] + spread[:, None] * grid
    return numbers.flatten(), density.expand_as(numbers).flatten()


def _device(layer_map: LayerMap) -> torch.device:
    return next((t.device for t in layer_map.parameters()), torch.device("cpu"))
