"""Depths are longest paths, and annealing ranges keep the order of the graph."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import ana_fx
from ana_fx.graph import layer_maps, module_of
from ana_fx.layers.layer_map import LayerMap
from ana_fx.passes.quantization.assign_annealing_ranges import layer_map_graph
from tests.graphs import Written
from tests.models import Residual, Shared

IMAGE = torch.rand(2, 3, 8, 8)


@dataclass(frozen=True)
class Step:
    """One operation of a random network: what it does, and which earlier tensors it reads; 0 is the input."""

    kind: str
    reads: tuple[int, ...]


class RandomNetwork(nn.Module):
    """Convolutions (some of them one shared module), sums, pools and reshapes over drawn edges.

    All that nobody else reads is returned, so that nothing is dead.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.steps = steps
        self.convs = nn.ModuleDict({str(n): nn.Conv1d(2, 2, 1) for n in range(len(steps))})
        self.shared = nn.Conv1d(2, 2, 1)
        self.pool = nn.MaxPool1d(1)
        self.average = nn.AvgPool1d(1)

    def forward(self, x: Tensor) -> list[Tensor]:
        tensors = [x]
        for index, step in enumerate(self.steps):
            tensors.append(self.compute(index, step, [tensors[source] for source in step.reads]))
        read = {source for step in self.steps for source in step.reads}
        return [tensor for index, tensor in enumerate(tensors) if index and index not in read]

    def compute(self, index: int, step: Step, sources: list[Tensor]) -> Tensor:
        first, last = sources[0], sources[-1]
        if step.kind == "conv":
            return self.convs[str(index)](first)
        if step.kind == "view":
            return first.view(first.size(0), 2, -1)
        return {"add": lambda: first + last}.get(step.kind, lambda: getattr(self, step.kind)(first))()


@st.composite
def networks(draw: st.DrawFn) -> tuple[Step, ...]:
    kinds = st.sampled_from(["conv", "shared", "average", "add", "add", "pool", "view"])
    steps = [Step("conv", (0,))]
    for index in range(draw(st.integers(1, 11))):
        source, kind = st.integers(max(0, index - 4), index + 1), draw(kinds)
        steps.append(Step(kind, tuple(draw(source) for _ in range(1 + (kind == "add")))))
    return tuple(steps)


def brute_force_depth(steps: tuple[Step, ...], index: int) -> int:
    """The most layer maps on any path that ends in tensor `index`, minus one; every path is walked."""
    if index == 0:
        return -1
    step = steps[index - 1]
    return max(brute_force_depth(steps, source) for source in step.reads) + (step.kind not in ("pool", "view"))


def edges(gm: GraphModule) -> list[tuple[str, str]]:
    """From layer map to layer map, found by walking back from each; independent of the pass."""

    def before(node: Node) -> set[Node]:
        is_map = [isinstance(module_of(source), LayerMap) for source in node.all_input_nodes]
        pairs = zip(node.all_input_nodes, is_map, strict=True)
        return set().union(*({source} if stop else before(source) for source, stop in pairs))

    maps = [node for node in gm.graph.nodes if isinstance(module_of(node), LayerMap)]
    return [(str(source.target), str(node.target)) for node in maps for source in before(node)]


def prepared(model: nn.Module, interval: str, **settings: object) -> GraphModule:
    return ana_fx.prepare(
        model, precision="ternary", schedule=ana_fx.Schedule(interval=interval, depth="layer_maps", **settings)
    )


@given(networks())
@settings(max_examples=40)
def test_depths_are_longest_paths(steps):
    depths = [found.depth for found in ana_fx.annealing_ranges(prepared(RandomNetwork(steps), "partition")).values()]
    maps = [index for index, step in enumerate(steps, start=1) if step.kind not in ("pool", "view")]
    assert depths == [brute_force_depth(steps, index) for index in maps]


@given(networks(), st.sampled_from(["partition", "same_start"]), st.floats(0, 0.4), st.floats(0.5, 1))
@settings(max_examples=40)
def test_no_layer_map_ends_before_one_that_feeds_it(steps, interval, start, stop):
    gm = prepared(RandomNetwork(steps), interval, start=start, stop=stop)
    ranges = ana_fx.annealing_ranges(gm)
    for u, v in edges(gm):
        assert ranges[u].end <= ranges[v].end
        assert ranges[u].depth < ranges[v].depth
        assert interval == "same_start" or ranges[u].end <= ranges[v].start


@given(networks(), st.sampled_from(["partition", "same_start", "overlapped"]))
@settings(max_examples=20)
def test_by_weights_no_layer_map_ends_before_one_that_feeds_it_and_those_without_share_a_range(steps, interval):
    gm = ana_fx.prepare(RandomNetwork(steps), schedule=ana_fx.Schedule(interval=interval, depth="weights"))
    ranges, maps = ana_fx.annealing_ranges(gm), layer_maps(gm)
    for u, v in edges(gm):
        assert ranges[u].end <= ranges[v].end
        assert ranges[u].depth + (maps[v].weight_quantizer is not None) <= ranges[v].depth + (ranges[v].depth == 0)


@given(networks(), st.sampled_from(list(ana_fx.DecayInterval)))
@settings(max_examples=40)
def test_layer_maps_of_one_depth_share_a_range_inside_the_schedule(steps, interval):
    ranges = ana_fx.annealing_ranges(prepared(RandomNetwork(steps), interval)).values()
    assert len(set(ranges)) == len({found.depth for found in ranges})
    assert {found.depth for found in ranges} == set(range(len(set(ranges))))
    assert all(0.0 <= found.start < found.end <= 0.7 for found in ranges)


@given(networks())
@settings(max_examples=20)
def test_the_layer_map_graph_has_the_edges_of_the_model(steps):
    gm = prepared(RandomNetwork(steps), "partition")
    graph = layer_map_graph(gm)
    assert {(str(u.target), str(v.target)) for u, v in graph.edges} == set(edges(gm))


def test_a_partition_divides_the_annealing_time_by_depths():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    ranges = ana_fx.annealing_ranges(prepared(model, "partition", start=0.25, stop=0.75)).values()
    assert [(r.depth, r.start, r.end) for r in ranges] == [
        (0, 0.25, 0.375),
        (1, 0.375, 0.5),
        (2, 0.5, 0.625),
        (3, 0.625, 0.75),
    ]


@pytest.mark.parametrize(
    ("interval", "wanted"),
    [
        ("same_start", [(0.0, 0.25), (0.0, 0.5), (0.0, 0.75)]),
        ("same_end", [(0.5, 0.75), (0.25, 0.75), (0.0, 0.75)]),
        ("overlapped", [(0.0, 0.75)] * 3),
    ],
)
def test_the_other_intervals_are_those_of_the_paper(interval, wanted):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    ranges = ana_fx.annealing_ranges(prepared(model, interval, stop=0.75)).values()
    assert [(r.start, r.end) for r in ranges] == wanted


def test_branches_at_one_depth_share_a_range_and_the_longer_one_decides():
    ranges = ana_fx.annealing_ranges(prepared(Residual(), "partition"))
    assert ranges["blocks.1.conv1"] == ranges["blocks.1.skip.0"]
    assert [found.depth for found in ranges.values()] == [0, 1, 2, 3, 4, 5, 4, 6, 7, 8]


def test_a_shared_module_has_a_range_at_each_call():
    ranges = ana_fx.annealing_ranges(prepared(Shared(), "partition"))
    assert [(path, found.depth) for path, found in ranges.items()] == [
        ("stem", 0),
        ("conv", 1),
        ("conv_1", 2),
        ("add", 3),
        ("avg_pool2d", 4),
        ("head", 5),
    ]


def test_the_weight_and_the_output_of_a_layer_map_are_annealed_together():
    qat = prepared(Residual(), "partition")
    annealer = ana_fx.Annealer(qat, 90)
    for _ in range(30):
        annealer.step()
    for layer_map in layer_maps(qat).values():
        assert len({float(quantizer.std) for quantizer in layer_map.quantizers()}) == 1


def test_a_float_last_layer_has_no_range_and_takes_no_time():
    model = Written(lambda m, x: m.head(F.relu(m.conv(x)).flatten(1)), conv=nn.Conv2d(3, 2, 1), head=nn.Linear(128, 2))
    qat = ana_fx.prepare(model, IMAGE, precision=ana_fx.Precision(output="float"))
    assert {path: (r.start, r.end) for path, r in ana_fx.annealing_ranges(qat).items()} == {"conv": (0.0, 0.7)}


def test_a_schedule_that_breaks_the_order_is_refused():
    backwards = ana_fx.Schedule(depth_overrides={0: ana_fx.LayerSchedule(0.4, 0.7), 1: ana_fx.LayerSchedule(0.0, 0.3)})
    with pytest.raises(ana_fx.ScheduleError, match=r"0 -> 1: its noise is gone at 0\.7, that of its reader"):
        ana_fx.prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), schedule=backwards)
