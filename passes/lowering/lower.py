"""From a trained graph to an integer program."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.errors import AccumulatorError, ConvertError, listing
from ana_fx.graph import layer_map_of, location, module_of
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.float_map import FloatMap
from ana_fx.layers.image_normalization import ImageNormalization
from ana_fx.layers.input_quantizers import ImageQuantizer, InputQuantizer
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import ADAPTIVE_MAX_POOLS, MAX_POOLS, is_dropout, is_movement
from ana_fx.passes.lowering.compare_runs import keep_runs
from ana_fx.passes.lowering.lower_borders import dequantize_inputs, lower_image_quantizer, lower_input_quantizer
from ana_fx.passes.lowering.lower_float_map import lower_float_map
from ana_fx.passes.lowering.lower_layer_map import lower_constant, lower_operator_map, lower_softmax, lower_table
from ana_fx.passes.lowering.lower_max_pool import lower_adaptive_max_pool, lower_max_pool
from ana_fx.passes.lowering.lower_movement import lower_movement
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.passes.lowering.lowering_context import LoweringContext, Rule
from ana_fx.passes.lowering.recording import record
from ana_fx.passes.node_by_node import Evaluator
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.program.tensor_spec import TensorSpec, set_spec

__all__ = ["RULES", "Lower", "rule_of"]

RULES: Mapping[type[nn.Module], Rule] = MappingProxyType(
    {
        InputQuantizer: lower_input_quantizer,
        ImageQuantizer: lower_image_quantizer,
        ConstantMap: lower_constant,
        FloatMap: lower_float_map,
        ImageNormalization: lower_operator_map,
        OperatorMap: lower_operator_map,
        SoftmaxMap: lower_softmax,
        TableMap: lower_table,
        **dict.fromkeys(MAX_POOLS, lower_max_pool),
        **dict.fromkeys(ADAPTIVE_MAX_POOLS, lower_adaptive_max_pool),
    }
)


@dataclass(frozen=True)
class Lower(Pass):
    """Fold quantizers, batch norms, biases and activations into integer arithmetic.

    before   x -> input quantizer -> layer map(·, scale) -> dropout -> view -> layer map(·, scale)
    after    x -> quantize -> integer map -> reshape -> integer head -> dequantize

    The trained graph runs on two batches first, which tell where the batch lies in every tensor; what it gave is kept
    for `CompareRuns`. Tensors of the program have their batch axis in front, and each node has a TensorSpec. A layer
    map without quantizers stays float behind a dequantize, and a float map before a quantize too.
    """

    name: ClassVar[str] = "lower"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = PROGRAM

    def run(self, gm: GraphModule) -> bool:
        recording = record(gm)
        keep_runs(gm, recording.runs)
        for node, layout in recording.layouts.items():
            set_spec(node, TensorSpec(layout))
        nodes = list(gm.graph.nodes)
        modules = {node: module for node in nodes if (module := module_of(node)) is not None}
        context = LoweringContext(gm, modules, recording.values, Evaluator(gm, recording.values))
        rules = [(node, rule_of(node, recording.values)) for node in nodes]
        for node, rule in rules:
            rule(context, node, modules.get(node))
        if context.problems:
            raise AccumulatorError(
                listing(
                    f"{len(context.problems)} operation(s) do not fit:",
                    context.problems,
                    "give the weights or the input of these layers fewer bits, or split the layers",
                )
            )
        for node in reversed(gm.graph.nodes):  # scales, sizes and float constants have no readers any more
            if not node.users and node.op not in ("placeholder", "output"):
                gm.graph.erase_node(node)
        _delete_unread_tensors(gm)
        return bool(modules)


def rule_of(node: Node, values: Container[Node]) -> Rule:
    """Return the rule by which a node is lowered.

    Args:
        node: A node of the trained graph.
        values: The nodes that hold no tensor or depend on no input.

    Raises:
        ConvertError: No rule is for it.
    """
    module, layer_map = module_of(node), layer_map_of(node)
    is_last_float = layer_map is not None and not layer_map.is_quantized and not layer_map.stays_float
    if node.op == "output" or is_last_float:
        return dequantize_inputs
    if layer_map is None and node in values:  # a size, a scale, or a constant in floats
        return _leave
    kinds = type(module).__mro__ if layer_map is None else (type(module),)  # a kind of layer map has a rule of its own
    for kind in kinds:
        if kind in RULES:
            return RULES[kind]
    if is_dropout(module):
        return _drop
    if node.op == "placeholder":
        return _leave
    if is_movement(node):
        return lower_movement
    raise ConvertError(
        f"{location(node)}: {type(module).__name__ if module else node.target} has no integer form, needed one of "
        f"{', '.join(kind.__name__ for kind in RULES)}, or data movement; give the module a rule of lowering"
    )


def _leave(context: LoweringContext, node: Node, _: object) -> None:
    """Leave a node as it is; it is erased in the end if nothing reads it."""


def _drop(context: LoweringContext, node: Node, _: object) -> None:
    """Remove a dropout, which does nothing in eval mode."""
    context.drop(node, node.all_input_nodes[0])


def _delete_unread_tensors(gm: GraphModule) -> None:
    """Delete the parameters and buffers of containers that no node reads, such as those of constants."""
    read = {str(node.target) for node in gm.graph.nodes if node.op in ("call_module", "get_attr")}
    called = tuple(f"{path}." for path in read)
    for path, module in gm.named_modules():
        if f"{path}.".startswith(called):
            continue
        for name in [*module._parameters, *module._buffers]:
            if f"{path}.{name}".removeprefix(".") not in read:
                delattr(module, name)
