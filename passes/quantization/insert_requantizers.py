"""Requantizers where tensors are joined that have scales of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.graph import layer_map_of, unique_path
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.identity import Identity
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import passes_levels
from ana_fx.passes.fusion.fused_graph import FUSED
from ana_fx.passes.quantization.first_last_precision import precision_of
from ana_fx.passes.quantization.scale_groups import is_read_by_table, level_producers
from ana_fx.precision.precision import Precision

__all__ = ["InsertRequantizers"]

_WIDE = 8  # bits of what a table or a softmax reads
_KEY = "is_requantizer"  # of `Node.meta`: what has been requantised already can share


@dataclass(frozen=True)
class InsertRequantizers(Pass):
    """Put a layer map over the identity before a join whose operand cannot take the scale of the others.

    A sum is such a join where a target needs it.

    before   image -> cat(image, layer map)
    after    image -> requantizer -> cat(requantizer, layer map)

    Model inputs and softmax have scales of their own; what a table reads has eight bits, which the
    others may not have.

    Args:
        aligns_sums: Whether the tensors of a sum must have one scale.
        fills_ranges: Whether what an activation clips must have a scale of its own, with which its levels end
            where the activation does.
    """

    name: ClassVar[str] = "insert-requantizers"
    requires: ClassVar[Dialect] = FUSED
    ensures: ClassVar[Dialect] = FUSED
    aligns_sums: bool = False
    fills_ranges: bool = False

    def run(self, gm: GraphModule) -> bool:
        producers, precision = level_producers(gm), precision_of(gm)
        edges = [
            (node, source)
            for node in gm.graph.nodes
            if self._is_join(node)
            for source in _level_operands(node, producers)
            if _KEY not in source.meta and not all(self._can_share(each, precision) for each in producers[source])
        ]
        for node, source in edges:
            path = unique_path(gm, f"{source.name}_requantizer")
            gm.add_submodule(path, OperatorMap(Identity()).train(gm.training))
            with gm.graph.inserting_before(node):
                call = gm.graph.call_module(path, (source,))
            call.meta, call.stack_trace = dict(source.meta) | {_KEY: True}, node.stack_trace
            node.replace_input_with(source, call)
        return bool(edges)

    def _is_join(self, node: Node) -> bool:
        layer_map = layer_map_of(node)
        if layer_map is not None:
            return self.aligns_sums and layer_map.aligns_inputs
        return passes_levels(node)

    def _can_share(self, producer: Node, precision: Precision) -> bool:
        layer_map = layer_map_of(producer)
        if layer_map is None or layer_map.has_own_scale:
            return False
        if self.fills_ranges and layer_map.clip_range.maximum < math.inf:
            return False
        return precision.of(str(producer.target)).activation.bits == _WIDE or not is_read_by_table(producer)


def _level_operands(node: Node, producers: dict[Node, list[Node]]) -> list[Node]:
    """The inputs of a node that carry levels, if there are several."""
    operands = [source for source in node.all_input_nodes if producers.get(source)]
    return list(dict.fromkeys(operands)) if len(operands) > 1 else []
