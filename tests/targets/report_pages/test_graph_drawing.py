"""The drawing of a graph: no box on another, no arrow lost, arrows that lead down."""

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ana_fx.targets.report_pages.graph_drawing import drawing
from ana_fx.targets.report_pages.program_report import NodeFacts, program_facts
from tests.models import Residual
from tests.programs import converted


def boxes(svg: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r'<rect class="\w+" x="(\d+)" y="(\d+)"', svg)]


@st.composite
def graphs(draw):
    sources = [
        draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(draw(st.integers(1, 12)))
    ]
    return [NodeFacts(f"n{i}", "sum", tuple(f"n{j}" for j in sorted(each))) for i, each in enumerate(sources)]


@given(graphs())
@settings(max_examples=50)
def test_boxes_stand_apart_and_below_what_they_read(nodes):
    svg = drawing(nodes, {})
    places = dict(zip((node.name for node in nodes), boxes(svg), strict=True))
    assert len(set(places.values())) == len(nodes)
    assert all(places[source][1] < places[node.name][1] for node in nodes for source in node.reads)
    assert svg.count('class="arrow"') == sum(len(node.reads) for node in nodes)


def test_a_residual_network_is_drawn_with_its_skip():
    nodes = program_facts(converted(Residual), Path("net.html")).nodes
    svg = drawing(nodes, {})
    assert len(boxes(svg)) == len(nodes)
    assert "L" in svg  # an arrow past other boxes is straight in its middle


def test_a_long_name_is_cut_and_told_in_full():
    svg = drawing([NodeFacts("a" * 50, "sum", ())], {})
    assert f"<title>{'a' * 50}: sum</title>" in svg
    assert f"{'a' * 29}…</text>" in svg
