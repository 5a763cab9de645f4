"""What quantisation does to each layer: a report that is read as a table, a picture, JSON or HTML."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ana_fx.text.plain_text import cell, markup
from ana_fx.text.printed import printed

if TYPE_CHECKING:  # these take long to import, or need an extra
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = ["LayerError", "LayerErrors"]

_WIDTH = 160


@dataclass(frozen=True)
class LayerError:
    """What happens to the output of one layer map, or to one input of the model.

    Args:
        name: Module path.
        operation: What it computes.
        snr: Signal-to-noise ratio of its output against the float network's, in dB; infinite if nothing differs.
        own_snr: The same if the layer read what the float network's layer reads, so that the error is its own.
        saturated: Share of the outputs that are clipped to the lowest or highest level.
        dead: How many channels are constant in the float network.
        lost: How many channels are constant in the quantised network only.
        gain: The root mean square of its float outputs over that of what it reads.
        peak: The largest float output over the root mean square of all.
        faults: What is wrong, in words; empty if nothing was found.
    """

    name: str
    operation: str
    snr: float
    own_snr: float
    saturated: float
    dead: int
    lost: int
    gain: float
    peak: float
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerErrors:
    """The rows of `compare_layers`, in graph order; prints as a table."""

    rows: tuple[LayerError, ...]

    @property
    def worst(self) -> LayerError:
        """The layer whose own error is the largest part of its output."""
        return min(self.rows, key=lambda row: row.own_snr)

    @property
    def faulty(self) -> tuple[LayerError, ...]:
        """The layers at which a fault was found."""
        return tuple(row for row in self.rows if row.faults)

    def __str__(self) -> str:
        from rich.console import Console

        return printed(self, Console(width=_WIDTH, no_color=True, file=io.StringIO()))

    def __rich__(self) -> Table:
        """The table, for rich consoles."""
        from rich.table import Table

        last, worst = self.rows[-1], self.worst
        title = (
            f"{len(self.rows)} layers against the float network: {_decibels(last.snr)} dB at {last.name}; "
            f"the largest error of its own: {worst.name}, {_decibels(worst.own_snr)} dB"
        )
        table = Table(title=markup(title), title_justify="left")
        table.add_column("name", no_wrap=True)
        table.add_column("operation")
        for column in ("SNR, dB", "own SNR, dB", "saturated", "dead", "lost", "gain", "peak"):
            table.add_column(column, justify="right")
        table.add_column("faults")
        for row in self.rows:
            numbers = (_decibels(row.snr), _decibels(row.own_snr), f"{row.saturated:.2%}", str(row.dead), str(row.lost))
            ratios = (f"{row.gain:.3g}", f"{row.peak:.3g}")
            table.add_row(*(cell(each) for each in (row.name, row.operation, *numbers, *ratios, "; ".join(row.faults))))
        return table

    def to_json(self) -> str:
        """The rows as JSON; an infinite number is null."""
        rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]
        return json.dumps({"worst": self.worst.name, "layers": rows}, indent=1, ensure_ascii=False)

    def to_html(self) -> str:
        """The table as a page that needs no other file."""
        from rich.console import Console

        console = Console(width=_WIDTH, record=True, file=io.StringIO())
        console.print(self.__rich__())
        return console.export_html(inline_styles=True)

    def plot(self) -> Figure:
        """Both ratios of each layer as bars, the layers with faults marked; needs the extra `plot`."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 1.0 + 0.25 * len(self.rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(self.rows))
        finite = [value for row in self.rows for value in (row.snr, row.own_snr) if math.isfinite(value)]
        top = max(finite, default=1.0)
        axes.barh([y - 0.2 for y in places], [min(row.snr, top) for row in self.rows], 0.4, label="output")
        axes.barh([y + 0.2 for y in places], [min(row.own_snr, top) for row in self.rows], 0.4, label="its own error")
        axes.set_yticks(list(places), [row.name + (" (!)" if row.faults else "") for row in self.rows])
        axes.invert_yaxis()
        axes.set_xlabel("signal-to-noise ratio against the float network, dB")
        axes.legend()
        return figure


def _decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "∞" if value > 0 else "−∞"


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
