"""The order in which noise vanishes: what the graph asks for, and where a schedule breaks it."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from torch.fx import GraphModule, Node

from ana_fx.graph import layer_map_of
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import DepthRule
from ana_fx.schedule.schedule import Schedule

__all__ = ["OrderBreak", "annealing_order", "depths", "layer_map_graph", "order_breaks"]

_SEARCHED = 2.0**-20  # of training: times found by bisection that differ by less are one


@dataclass(frozen=True)
class OrderBreak:
    """An edge between two layer maps whose noise does not vanish input first.

    Args:
        first: Module path of the layer map that is read.
        second: Module path of the one that reads it.
        reason: Which times stand in the wrong order.
        is_named: Whether the schedule's interval, `same_end`, says so by its name.
    """

    first: str
    second: str
    reason: str
    is_named: bool

    def __str__(self) -> str:
        return f"{self.first} -> {self.second}: {self.reason}"


def layer_map_graph(gm: GraphModule) -> nx.DiGraph[Node]:
    """The quantised layer maps and the ways from one to the next through other operations.

    `has_weight` of a node says whether a weight learns as long as its noise lasts: its own, or one of the layer maps
    that hand it reals inside an island of floats.
    """
    graph: nx.DiGraph[Node] = nx.DiGraph()
    reached_from: dict[Node, frozenset[Node]] = {}
    brings_weight: set[Node] = set()
    for node in gm.graph.nodes:
        sources = frozenset().union(*(reached_from[source] for source in node.all_input_nodes))
        layer_map = layer_map_of(node)
        has_weight = layer_map is not None and layer_map.learns_weight
        has_weight |= not brings_weight.isdisjoint(node.all_input_nodes)
        if layer_map is not None and layer_map.is_quantized:
            graph.add_node(node, layer_map=layer_map, has_weight=has_weight)
            graph.add_edges_from((source, node) for source in sources)
            sources = frozenset((node,))
        elif has_weight:
            brings_weight.add(node)
        reached_from[node] = sources
    return graph


def annealing_order(graph: nx.DiGraph[Node], schedule: Schedule) -> dict[Node, AnnealingRange]:
    """The range of each layer map under a schedule, in graph order.

    Raises:
        ValueError: An override starts after the end.
    """
    found = depths(graph, schedule)
    num_depths = 1 + max(found.values(), default=0)
    return {node: schedule.annealing_range(found[node], num_depths, str(node.target)) for node in graph}


def depths(graph: nx.DiGraph[Node], schedule: Schedule) -> dict[Node, int]:
    """The depth of each layer map: how many that count stand before it on the longest path (see `DepthRule`)."""
    counted: dict[Node, int] = {}  # on the longest path, itself included
    for node in nx.topological_sort(graph):
        before = max((counted[source] for source in graph.predecessors(node)), default=0)
        counts = schedule.depth is DepthRule.LAYER_MAPS or graph.nodes[node]["has_weight"]
        counted[node] = before + counts
    return {node: max(0, counted[node] - 1) for node in graph}


def order_breaks(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], schedule: Schedule
) -> tuple[OrderBreak, ...]:
    """The edges u -> v with start(u) > start(v) or end(u) > end(v), or under `partition` end(u) > start(v).

    Noise that never vanishes ends after all that does; where that of v stays as it is, u may do what it likes.

    A quantizer whose noise is gone hands exact levels on. One whose input still moves when its own
    noise is gone jumps wherever that input crosses a threshold (see `ana_fx.study.theory`).
    """
    breaks = []
    num_depths = 1 + max((each.depth for each in ranges.values()), default=0)
    for u, v in graph.edges:
        first, second = ranges[u], ranges[v]
        is_moved = any(each.override is not None and each.override.is_timed for each in (first, second))
        reason = _reason(first, second, schedule, num_depths)
        if reason is not None:
            is_named = schedule.function is None and not schedule.interval.is_ordered and not is_moved
            breaks.append(OrderBreak(str(u.target), str(v.target), reason, is_named))
    return tuple(breaks)


def _reason(first: AnnealingRange, second: AnnealingRange, schedule: Schedule, num_depths: int) -> str | None:
    if schedule.constants(second).is_static:
        return None  # whatever it reads is gone before
    if schedule.never_vanishes(first, num_depths) and not schedule.never_vanishes(second, num_depths):
        return f"its noise never vanishes, that of its reader does at {second.end:g}"
    if schedule.constants(first).is_static:
        return None
    slack = 0.0 if schedule.function is None else _SEARCHED
    if first.end > second.end + slack:
        return f"its noise is gone at {first.end:g}, that of its reader already at {second.end:g}"
    if first.start > second.start + slack:
        return f"its noise begins to decay at {first.start:g}, that of its reader already at {second.start:g}"
    is_disjoint = schedule.function is None and schedule.interval.is_disjoint and first.depth != second.depth
    if is_disjoint and first.end > second.start:
        return f"a partition, but {first.start:g}…{first.end:g} and {second.start:g}…{second.end:g} overlap"
    return None
