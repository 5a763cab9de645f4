"""Which tensors must share a scale: those that a join, such as a concatenation, puts into one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of, unique_path
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.layers.softmax_map import SoftmaxMap
from ana_fx.layers.table_map import TableMap
from ana_fx.operators.identity import Identity
from ana_fx.operators.sum import Sum
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_shape, passes_levels
from ana_fx.precision.precision import Precision

__all__ = ["InsertRequantizers", "is_read_by_table", "scale_groups"]

_WIDE = 8  # bits of what a table or a softmax reads


@dataclass(frozen=True)
class InsertRequantizers(Pass):
    """Put a layer map over the identity before a join whose operand cannot take the scale of the others.

    A sum is such a join where a target needs it.

    before   image -> cat(image, layer map)
    after    image -> requantizer -> cat(requantizer, layer map)

    Model inputs and softmax have scales of their own; what a table reads has eight bits, which the
    others may not have.

    Args:
        precision: Types of the tensors.
        aligns_sums: Whether the tensors of a sum must have one scale.
        fills_ranges: Whether what an activation clips must have a scale of its own, with which its levels end
            where the activation does.
    """

    name: ClassVar[str] = "insert-requantizers"
    precision: Precision
    aligns_sums: bool = False
    fills_ranges: bool = False

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        producers = _producers(gm)
        edges = [
            (node, source)
            for node in gm.graph.nodes
            if len(operands := _level_operands(node, producers)) > 1 and self._is_join(node)
            for source in dict.fromkeys(operands)
            if not all(self._can_share(producer) for producer in producers[source])
        ]
        for node, source in edges:
            path = unique_path(gm, f"{source.name}_requantizer")
            gm.add_submodule(path, OperatorMap(Identity()).train(gm.training))
            with gm.graph.inserting_before(node):
                call = gm.graph.call_module(path, (source,))
            call.meta, call.stack_trace = dict(source.meta), node.stack_trace
            node.replace_input_with(source, call)
        return bool(edges)

    def _is_join(self, node: Node) -> bool:
        return passes_levels(node) or (self.aligns_sums and is_sum(node))

    def _can_share(self, producer: Node) -> bool:
        module = module_of(producer)
        if not isinstance(module, LayerMap) or isinstance(module, SoftmaxMap):
            return False
        if self.fills_ranges and isinstance(module, OperatorMap) and _clips(module.clip_range):
            return False
        return self.precision.of(str(producer.target)).activation.bits == _WIDE or not is_read_by_table(producer)


def _clips(clip_range: ClipRange) -> bool:
    """Whether an activation clips from above."""
    return clip_range.maximum < math.inf


def is_sum(node: Node) -> bool:
    """Whether a node is a sum of two tensors."""
    module = module_of(node)
    return isinstance(module, OperatorMap) and isinstance(module.operator, Sum)


def scale_groups(gm: GraphModule, *, aligns_sums: bool = False) -> list[list[Node]]:
    """The layer maps that must share a scale, in graph order; those alone in a group too.

    What is joined shares its type too. The tensors of a sum share nothing, or their scale alone if `aligns_sums`.
    """
    producers = _producers(gm)
    shared: nx.Graph[Node] = nx.Graph()
    for node in gm.graph.nodes:
        if isinstance(module_of(node), LayerMap):
            shared.add_node(node)
        sources: list[Node] = []
        if aligns_sums and is_sum(node):
            sources = [producer for source in node.all_input_nodes for producer in producers.get(source, ())]
        elif passes_levels(node):
            sources = producers[node]
        together = [source for source in sources if isinstance(module_of(source), LayerMap)]
        shared.add_edges_from(itertools.pairwise(together))
    position = {node: index for index, node in enumerate(gm.graph.nodes)}
    groups = [sorted(group, key=position.__getitem__) for group in nx.connected_components(shared)]
    return sorted(groups, key=lambda group: position[group[0]])


def is_read_by_table(node: Node) -> bool:
    """Whether a table or a softmax reads a layer map's levels."""
    return any(
        isinstance(module_of(user), (TableMap, SoftmaxMap)) or (passes_levels(user) and is_read_by_table(user))
        for user in node.users
    )


def _level_operands(node: Node, producers: dict[Node, list[Node]]) -> list[Node]:
    """The inputs of a node that carry levels."""
    return [source for source in node.all_input_nodes if producers.get(source)]


def _producers(gm: GraphModule) -> dict[Node, list[Node]]:
    """For each node that carries levels, the layer maps and inputs that they come from."""
    producers: dict[Node, list[Node]] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder" or isinstance(module_of(node), LayerMap):
            producers[node] = [node]
        elif passes_levels(node) and not is_shape(node):
            sources = [producer for source in node.all_input_nodes for producer in producers.get(source, ())]
            producers[node] = list(dict.fromkeys(sources))
    return producers
