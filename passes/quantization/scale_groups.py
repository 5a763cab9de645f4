"""Which tensors must share a scale: those that a join, such as a concatenation, puts into one."""

from __future__ import annotations

import itertools

import networkx as nx
from torch.fx import GraphModule, Node

from ana_fx.graph import layer_map_of
from ana_fx.passes.canonical.canonical_dialect import is_shape, passes_levels

__all__ = ["is_read_by_table", "level_producers", "scale_groups"]


def scale_groups(gm: GraphModule, *, aligns_sums: bool = False) -> list[list[Node]]:
    """The layer maps that must share a scale, in graph order; those alone in a group too.

    What is joined shares its type too. The tensors of a sum share nothing, or their scale alone if `aligns_sums`.
    """
    producers = level_producers(gm)
    shared: nx.Graph[Node] = nx.Graph()
    for node in gm.graph.nodes:
        layer_map = layer_map_of(node)
        if layer_map is not None:
            shared.add_node(node)
        sources: list[Node] = []
        if aligns_sums and layer_map is not None and layer_map.aligns_inputs:
            sources = [producer for source in node.all_input_nodes for producer in producers.get(source, ())]
        elif passes_levels(node):
            sources = producers[node]
        together = [source for source in sources if layer_map_of(source) is not None]
        shared.add_edges_from(itertools.pairwise(together))
    position = {node: index for index, node in enumerate(gm.graph.nodes)}
    groups = [sorted(group, key=position.__getitem__) for group in nx.connected_components(shared)]
    return sorted(groups, key=lambda group: position[group[0]])


def is_read_by_table(node: Node) -> bool:
    """Whether a layer map that reads bytes, a table or a softmax, reads a layer map's levels."""
    readers = ((user, layer_map_of(user)) for user in node.users)
    return any(
        reader.reads_bytes if reader is not None else passes_levels(user) and is_read_by_table(user)
        for user, reader in readers
    )


def level_producers(gm: GraphModule) -> dict[Node, list[Node]]:
    """For each node that carries levels, the layer maps and inputs that they come from."""
    producers: dict[Node, list[Node]] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder" or layer_map_of(node) is not None:
            producers[node] = [node]
        elif passes_levels(node) and not is_shape(node):
            sources = [producer for source in node.all_input_nodes for producer in producers.get(source, ())]
            producers[node] = list(dict.fromkeys(sources))
    return producers
