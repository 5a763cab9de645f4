"""The graph of a program as a drawing, in SVG: a box for each node, from the input at the top to the output.

A node stands in the row of its longest path from an input, and in the column nearest to those that it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ana_fx.targets.report_pages.program_report import NodeFacts

__all__ = ["drawing"]

_WIDTH, _HEIGHT = 230, 46  # of a box
_ACROSS, _DOWN = 270, 82  # from box to box
_MARGIN = 20
_LONGEST = 30  # characters of a line


def drawing(nodes: Sequence[NodeFacts], anchors: dict[str, str]) -> str:
    """Draw the graph as an `<svg>` element.

    Args:
        nodes: The graph, in order.
        anchors: The id of the place on the page that says more of a node, by the node's name.
    """
    places = _places(nodes)
    num_columns = 1 + max((column for column, _ in places.values()), default=0)
    num_rows = 1 + max((row for _, row in places.values()), default=0)
    width, height = num_columns * _ACROSS + 2 * _MARGIN, num_rows * _DOWN + 2 * _MARGIN
    arrows = [_arrow(places[source], places[node.name]) for node in nodes for source in node.reads]
    boxes = [_box(node, places[node.name], anchors.get(node.name)) for node in nodes]
    return (
        f'<svg class="graph" role="group" aria-label="The graph of the program" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(arrows)}{"".join(boxes)}</svg>'
    )


def _places(nodes: Sequence[NodeFacts]) -> dict[str, tuple[int, int]]:
    """Find a column and a row for each node; a long arrow keeps its column free where another one is left."""
    rows: dict[str, int] = {}
    for node in nodes:  # in topological order
        rows[node.name] = 1 + max((rows[source] for source in node.reads), default=-1)
    taken: set[tuple[int, int]] = set()
    columns: dict[str, int] = {}
    for node in nodes:
        row = rows[node.name]
        column = min((columns[source] for source in node.reads), default=0)
        while (column, row) in taken:
            column += 1
        columns[node.name] = column
        for source in node.reads:
            taken.update((column, passed) for passed in range(rows[source] + 1, row) if columns[source] != column)
        taken.add((column, row))
    return {name: (columns[name], rows[name]) for name in rows}


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x0, y0 = _centre(start)
    x1, y1 = _centre(end)
    y0, y1 = y0 + _HEIGHT // 2, y1 - _HEIGHT // 2
    if end[1] - start[1] == 1:
        middle = (y0 + y1) // 2
        return f'<path class="arrow" d="M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}" marker-end="url(#tip)"/>'
    passed = min(end[1] - start[1], 12)
    side = max(x0, x1) + _WIDTH // 2 + 8 + 3 * passed  # past the boxes between them, the farther the more
    bend = f"C{x0} {y0 + 18} {side} {y0 + 8} {side} {y0 + 34}L{side} {y1 - 34}C{side} {y1 - 8} {x1} {y1 - 18} {x1} {y1}"
    return f'<path class="arrow" d="M{x0} {y0}{bend}" marker-end="url(#tip)"/>'


def _box(node: NodeFacts, place: tuple[int, int], anchor: str | None) -> str:
    x, y = _centre(place)
    what = node.kind if node.row is None else f"{node.kind} · {node.row.weight or '–'} → {node.row.output or '–'}"
    shape = "" if node.shape is None else f" · {'×'.join(map(str, node.shape)) or '1'}"
    kind = "map" if node.row is not None else "moved"
    corner, size = f'x="{x - _WIDTH // 2}" y="{y - _HEIGHT // 2}"', f'width="{_WIDTH}" height="{_HEIGHT}"'
    box = (
        f'<rect class="{kind}" {corner} {size} rx="7"/>'
        f'<text class="name" x="{x}" y="{y - 4}">{escape(_cut(node.name))}</text>'
        f'<text class="what" x="{x}" y="{y + 13}">{escape(_cut(what + shape, 38))}</text>'
    )
    title = f"<title>{escape(f'{node.name}: {what}{shape}')}</title>"
    return f"<g>{title}{box}</g>" if anchor is None else f'<a href="#{anchor}">{title}{box}</a>'


def _centre(place: tuple[int, int]) -> tuple[int, int]:
    column, row = place
    return _MARGIN + column * _ACROSS + _WIDTH // 2, _MARGIN + row * _DOWN + _HEIGHT // 2


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
