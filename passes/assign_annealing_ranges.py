"""Depth and annealing range of each layer map, from the graph alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of
from ana_fx.layer_map import LayerMap
from ana_fx.passes.pass_ import Pass
from ana_fx.schedule import Interval, Schedule

__all__ = ["AssignAnnealingRanges", "layer_map_graph"]


@dataclass(frozen=True)
class AssignAnnealingRanges(Pass):
    """Give each layer map the range of its depth, the longest path of layer maps that ends in it.

    before   a -> b -> add(a, b) -> c
    after    depths 0, 1, 2, 3 and, under `partition`, a quarter of the annealing time each

    Afterwards, for each edge u -> v: end(u) <= end(v), and under `partition` end(u) <= start(v).
    """

    name: ClassVar[str] = "assign-annealing-ranges"
    schedule: Schedule

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        graph = layer_map_graph(gm)
        generations = list(nx.topological_generations(graph))  # a node's generation is its depth
        for depth, nodes in enumerate(generations):
            for node in nodes:
                graph.nodes[node]["layer_map"].annealing_range = self.schedule.annealing_range(depth, len(generations))
        _check_order(graph, self.schedule.interval)
        return False


def layer_map_graph(gm: GraphModule) -> nx.DiGraph[Node]:
    """The quantised layer maps and the ways from one to the next through other operations."""
    graph: nx.DiGraph[Node] = nx.DiGraph()
    reached_from: dict[Node, frozenset[Node]] = {}
    for node in gm.graph.nodes:
        sources = frozenset().union(*(reached_from[source] for source in node.all_input_nodes))
        module = module_of(node)
        if isinstance(module, LayerMap) and module.is_quantized:
            graph.add_node(node, layer_map=module)
            graph.add_edges_from((source, node) for source in sources)
            sources = frozenset((node,))
        reached_from[node] = sources
    return graph


def _check_order(graph: nx.DiGraph[Node], interval: Interval) -> None:
    for u, v in graph.edges:
        first, second = (graph.nodes[node]["layer_map"].annealing_range for node in (u, v))
        assert first.end <= second.end, f"{u} is annealed after {v}"
        assert interval is not Interval.PARTITION or first.end <= second.start, f"{u} and {v} overlap"
