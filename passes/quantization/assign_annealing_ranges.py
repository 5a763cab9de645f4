"""Depth and annealing range of each layer map, from the graph alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import networkx as nx
from torch.fx import GraphModule, Node

from ana_fx.annealing.annealer import noise_at, quantizer_ranges, set_noise
from ana_fx.annealing.ordering import OrderBreak, annealing_order, depths, layer_map_graph, order_breaks
from ana_fx.errors import ScheduleError, listing
from ana_fx.layers.layer_map import LayerMap
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.quantization.quantized_graph import QUANTIZED
from ana_fx.schedule.schedule import Schedule
from ana_fx.text.patterns import listed, unmatched

__all__ = ["AssignAnnealingRanges"]


@dataclass(frozen=True)
class AssignAnnealingRanges(Pass):
    """Give each layer map the range of its depth, the longest path of layer maps that ends in it.

    before   a -> b -> add(a, b) -> c
    after    depths 0, 1, 2, 3 and, under `partition`, a quarter of the annealing time each

    Afterwards, for each edge u -> v: start(u) <= start(v) and end(u) <= end(v), and under `partition`
    end(u) <= start(v), unless the schedule says by name that it breaks this order; where it does is
    noted in `gm.meta["order_breaks"]`. Quantizers get family, strategy and width of their noise, a static mean, and the
    noise of time 0; functions hear whether what they read are levels, with noise too.
    """

    name: ClassVar[str] = "assign-annealing-ranges"
    requires: ClassVar[Dialect] = QUANTIZED
    ensures: ClassVar[Dialect] = QUANTIZED
    schedule: Schedule

    def run(self, gm: GraphModule) -> bool:
        graph = layer_map_graph(gm)
        _check_overrides(graph, self.schedule)
        ranges = annealing_order(graph, self.schedule)
        breaks = order_breaks(graph, ranges, self.schedule)
        if not self.schedule.allows_disorder:
            _refuse([each for each in breaks if not each.is_named])
        maps: list[LayerMap] = [graph.nodes[node]["layer_map"] for node in graph]
        before = _timing(maps)
        for node, annealing_range in ranges.items():
            graph.nodes[node]["layer_map"].annealing_range = annealing_range
        of_quantizers = quantizer_ranges(maps)
        for quantizer, annealing_range in of_quantizers.items():
            quantizer.shape_noise(self.schedule.constants(annealing_range))
        _say_what_reads_levels(graph)
        set_noise(of_quantizers, noise_at(0.0, self.schedule, of_quantizers.values()))
        gm.meta["order_breaks"] = breaks
        return _timing(maps) != before


def _timing(maps: list[LayerMap]) -> list[tuple[Any, ...]]:
    """The range of each layer map, and the noise of each of its quantizers."""
    quantizers = [quantizer for layer_map in maps for quantizer in layer_map.quantizers()]
    noise = [(each.num_neighbours, each.offset, float(each.mean), float(each.std)) for each in quantizers]
    return [*((layer_map.annealing_range,) for layer_map in maps), *noise]


def _say_what_reads_levels(graph: nx.DiGraph[Node]) -> None:
    for node in graph:
        read = [graph.nodes[source]["layer_map"].output_quantizer for source in graph.predecessors(node)]
        reads_levels = all(each is None or each.strategy.gives_levels for each in read)
        graph.nodes[node]["layer_map"].set_reads_levels(reads_levels)


def _check_overrides(graph: nx.DiGraph[Node], schedule: Schedule) -> None:
    """Raise ScheduleError unless every override belongs to a layer map and leaves it a range."""
    problems = list(_problems(graph, schedule))
    if problems:
        paths = listed([str(node.target) for node in graph])
        raise ScheduleError(
            listing(f"{len(problems)} override(s) do not fit the model:", problems, f"its layer maps are {paths}")
        )


def _problems(graph: nx.DiGraph[Node], schedule: Schedule) -> Iterable[str]:
    found = depths(graph, schedule)
    num_depths = 1 + max(found.values(), default=0)
    for depth, _ in schedule.depth_overrides:
        if depth >= num_depths:
            yield f"depth {depth}: the depths are 0 to {num_depths - 1}"
    paths = [str(node.target) for node in graph]
    yield from unmatched((pattern for pattern, _ in schedule.overrides), paths, "layer map")
    for node, depth in sorted(found.items(), key=lambda each: each[1]):
        try:
            schedule.annealing_range(depth, num_depths, str(node.target))
        except ValueError as error:
            yield f"{node.target} at depth {depth}: {error}"


def _refuse(breaks: list[OrderBreak]) -> None:
    if breaks:
        raise ScheduleError(
            listing(
                f"{len(breaks)} edge(s) of the graph where noise does not vanish input first:",
                [str(each) for each in breaks],
                "change the overrides, or say Schedule(..., allows_disorder=True)",
            )
        )
