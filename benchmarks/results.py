"""What a benchmark measured: a table to be read, and the same numbers as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

__all__ = ["Row", "device_name", "print_rows", "write_json"]

Row = Mapping[str, float | str]


def device_name(device: str) -> str:
    """The name of the card, or of the processor's architecture."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"


def print_rows(console: Console, title: str, rows: Sequence[Row]) -> None:
    """A table with the keys of the first row as columns; a ratio is a float, and NaN was not measured."""
    table = Table(title=title)
    for index, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    console.print(table)


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "–" if value != value else f"×{value:.2f}"


def write_json(path: Path, device: str, rows: Sequence[Row]) -> None:
    """All rows, with what they were measured on; NaN as null."""
    plain = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    content = {"device": device_name(device), "torch": torch.__version__, "rows": plain}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
