"""The report of a program as a page of HTML that needs nothing else: no script, no style sheet, no connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from ana_fx.targets.report_pages.graph_drawing import drawing
from ana_fx.targets.report_pages.program_report import FileFacts, NodeFacts, ProgramReport
from ana_fx.targets.runtimes.kernel_families import KernelFamily
from ana_fx.targets.verify import VerifyReport

__all__ = ["page_of"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2730; --paper: #fff; --pale: #d4dbe1; --soft: #f1f5f7; --accent: #12666f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e9ed; --paper: #14191d; --pale: #3a444c; --soft: #1d252b; --accent: #66c3cc; }
}
body { margin: 0 auto; max-width: 1200px; padding: 1rem; font: 15px/1.5 system-ui, sans-serif;
       color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .5rem; }
.scroll { overflow: auto; border: 1px solid var(--pale); border-radius: 6px; }
.tall { max-height: 46rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--pale); text-align: right; white-space: nowrap; }
th { position: sticky; top: 0; z-index: 1; background: var(--soft); font-weight: 600; }
th { min-width: 4rem; white-space: normal; vertical-align: bottom; line-height: 1.25; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
th:first-child { z-index: 2; background: var(--soft); }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody tr:last-child td { border-bottom: 0; }
tr:target td { background: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; margin: 0; }
dl div { background: var(--soft); border-radius: 6px; padding: .5rem .8rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
.graph text { text-anchor: middle; fill: var(--ink); } .name { font-size: 13px; font-weight: 600; }
.what { font-size: 11px; } .map { fill: var(--soft); stroke: var(--accent); stroke-width: 1.6; }
.moved { fill: var(--paper); stroke: var(--pale); } .arrow { fill: none; stroke: var(--accent); }
marker path { fill: var(--accent); } a { color: var(--accent); }
"""

_Column = tuple[str, Callable[[NodeFacts], object]]
_COLUMNS: tuple[_Column, ...] = (
    ("layer map", lambda node: node.name),
    ("operation", lambda node: node.kind),
    ("weights", lambda node: node.row and node.row.weight),
    ("output", lambda node: node.row and node.row.output),
    ("shape", lambda node: node.shape and "×".join(map(str, node.shape))),
    ("scale", lambda node: node.row and node.row.scale),
    ("levels", lambda node: node.levels and f"{node.levels[0]} … {node.levels[1]}"),
    ("as reals", lambda node: _reals(node)),
    ("accumulator at most", lambda node: node.row and node.row.accumulator),
    ("pair sum at most", lambda node: node.row and node.row.pair_sum),
    ("multiplier at most", lambda node: node.multiplier),
    ("shifts", lambda node: node.shifts and " … ".join(map(str, dict.fromkeys(node.shifts)))),
    ("computed as", lambda node: node.row and node.row.encoding),
    ("proof", lambda node: node.row and node.row.proof),
    ("saturated", lambda node: None if node.saturated is None else f"{node.saturated:.1%}"),
    ("weight bytes", lambda node: node.weight_bytes or None),
    ("times smaller than float32", lambda node: _ratio(node)),
)
_MOST_ROWS = 60  # of a table or a drawing that stands on the page whole; of larger ones a part is seen at a time
_TEXT = ("layer map", "operation", "weights", "output", "shape", "levels", "as reals", "computed as", "proof")


def page_of(report: ProgramReport) -> str:
    """Return the page of a report as HTML."""
    layers = [node for node in report.nodes if node.row is not None]
    anchors = {node.name: f"layer-{index}" for index, node in enumerate(layers)}
    title = escape(f"{report.name} for {report.target}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>What the deployed network computes, layer by layer, and what was proven of it when it was converted by ana_fx.</p>
{_summary(report, layers)}
{_files(report.files)}
<h2>Layer maps</h2>
<p>A layer map multiplies and sums integers exactly, then rounds the sum to a level. <em>Scale</em> is the real number
that one level of its output stands for. <em>Accumulator</em> is the largest sum, <em>pair sum</em> the largest sum of
two products, in absolute value and for every input; sums become levels by a <em>multiplier</em> and a <em>shift</em>,
or as <em>computed as</em> says. <em>Proof</em> is how many thresholds of this rounding were compared with the trained
network's, <em>saturated</em> the share of outputs that are the lowest or the highest level on given data.</p>
{_table(layers, anchors)}
<h2>Graph</h2>
<p>A coloured box is a layer map, and leads to its row: weights → output · shape of one sample. Others move numbers.</p>
{_scrolling("graph", drawing(report.nodes, anchors), len(report.nodes))}
{_notes(report.notes)}
<p>Written by ana_fx {escape(report.version)}; {escape(report.data.name)} holds the same as data.</p>
</body>
</html>
"""


def _summary(report: ProgramReport, layers: Sequence[NodeFacts]) -> str:
    bound = max((node.row.accumulator or 0 for node in layers if node.row is not None), default=0)
    facts = {
        "layer maps": f"{len(layers):,}",
        "weights": f"{report.num_weights:,}",
        "bytes of weights": f"{report.weight_bytes:,}",
        "smaller than float32": f"{report.ratio:.1f} times",
        "largest accumulator": f"{bound:,} ({bound.bit_length() + 1} bits)",
    }
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in facts.items())}</dl>"


def _files(files: Sequence[FileFacts]) -> str:
    if not files:
        return "<h2>Files</h2>\n<p>No file was run for this report.</p>"
    rows = "".join(
        f"<tr><td>{escape(each.path.name)}</td><td>{each.bytes:,}</td>"
        f'<td class="text">{escape(", ".join(each.verified.runtimes))}</td>'
        f"<td>{each.verified.num_different:,} of {each.verified.num_outputs:,}</td>"
        f'<td class="text">{_processors(each.verified)}</td></tr>'
        for each in files
    )
    head = _head(("file", "bytes", "run in", "outputs that differ", "proven for"), ("run in", "proven for"))
    return "<h2>Files</h2>\n" + _scrolling("files", f"<table>{head}<tbody>{rows}</tbody></table>", len(files))


def _processors(verified: VerifyReport) -> str:
    if set(verified.proven_for) == set(KernelFamily):
        return "every processor"
    return escape(", ".join(family.value for family in verified.proven_for)) or "–"


def _table(layers: Sequence[NodeFacts], anchors: dict[str, str]) -> str:
    shown = [column for column in _COLUMNS if any(column[1](node) is not None for node in layers)]
    rows = "".join(
        f'<tr id="{anchors[node.name]}">{"".join(_cell(name, read(node)) for name, read in shown)}</tr>'
        for node in layers
    )
    head = _head([name for name, _ in shown], _TEXT)
    return _scrolling("layer maps", f"<table>{head}<tbody>{rows}</tbody></table>", len(layers))


def _ratio(node: NodeFacts) -> str | None:
    """Divide the bytes of its weights in float32 by those of its integers."""
    return f"{4 * node.num_weights / node.weight_bytes:.1f}" if node.weight_bytes else None


def _scrolling(name: str, content: str, num_rows: int) -> str:
    """Wrap what may be larger than the screen in a box that scrolls, and that the keyboard reaches."""
    kind = "scroll tall" if num_rows > _MOST_ROWS else "scroll"
    return f'<div class="{kind}" role="region" aria-label="{name}" tabindex="0">{content}</div>'


def _head(names: Sequence[str], text: Sequence[str]) -> str:
    cells = (f'<th scope="col"{_is_text(name, text)}>{escape(name)}</th>' for name in names)
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _cell(name: str, value: object) -> str:
    shown = "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    shown = f"{value:,}" if isinstance(value, int) else shown
    return f"<td{_is_text(name, _TEXT)}>{escape(shown)}</td>"


def _is_text(name: str, text: Sequence[str]) -> str:
    return ' class="text"' if name in text else ""


def _reals(node: NodeFacts) -> str | None:
    """The range of the levels as real numbers."""
    if node.levels is None or node.row is None or node.row.scale is None:
        return None
    low, high = (level * node.row.scale for level in node.levels)
    return f"{low:.4g} … {high:.4g}"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2>\n<ul>{items}</ul>" if notes else ""
