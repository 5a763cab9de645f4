"""`inspect`: what stands in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ana_fx.targets.file_family import family_at
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import FLOAT_TYPE
from ana_fx.text.json_text import JsonReport
from ana_fx.text.plain_text import cell, markup, plain
from ana_fx.text.printed import printed

__all__ = ["FileReport", "inspect"]

_MOST_SHOWN = 100


@dataclass(frozen=True)
class FileReport(JsonReport):
    """What stands in a file. Prints as tables.

    Args:
        path: The file.
        bytes: Its size.
        target: The target it was written for.
        io: "integer" or "float", the type at its borders.
        opset: Version of the standard operators.
        inputs: Its inputs.
        outputs: Its outputs.
        operators: How often each operator occurs.
        constants: Bytes of constants of each type.
        float_nodes: The nodes that give out floats, borders aside; none in an integer-only file.
        labels: What the channels of the output stand for.
    """

    path: Path
    bytes: int
    target: str
    io: str
    opset: int
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    operators: dict[str, int]
    constants: dict[str, int]
    float_nodes: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return printed(self, Console(width=120, no_color=True))

    def __rich__(self) -> Group:
        """The tables, for rich consoles."""
        target, io = plain(self.target), plain(self.io)
        title = f"{plain(self.path.name)}: target {target}, {io} borders, opset {self.opset}, {self.bytes:,} bytes"
        columns = ("border", "name", "stored as", "levels", "shape", "scale", "zero point")
        ends = Table(*columns, title=markup(title))
        for kind, values in (("input", self.inputs), ("output", self.outputs)):
            for each in values[:_MOST_SHOWN]:
                shape = "x".join(("N", *map(str, each.shape)))
                numbers = ("–", "–") if each.levels == FLOAT_TYPE else (f"{each.scale:.9g}", str(each.zero_point))
                stored = each.held or each.dtype.name
                ends.add_row(*map(cell, (kind, each.name, stored, each.levels, shape, *numbers)))
        inside = Table("operators", "constants", "integers only")
        inside.add_row(
            cell("\n".join(f"{count} {plain(name)}" for name, count in list(self.operators.items())[:_MOST_SHOWN])),
            "\n".join(f"{count:,} bytes of {name}" for name, count in self.constants.items()),
            "yes" if not self.float_nodes else f"no: {len(self.float_nodes)} nodes give floats",
        )
        shown = ", ".join(map(plain, self.labels[:_MOST_SHOWN]))
        more = f" and {len(self.labels) - _MOST_SHOWN:,} more" if len(self.labels) > _MOST_SHOWN else ""
        return Group(ends, inside, *([Text(f"labels: {shown}{more}")] if self.labels else []))


def inspect(path: str | os.PathLike[str]) -> FileReport:
    """Read a file and say what stands in it.

    Args:
        path: A file that `export` wrote.

    Raises:
        VerifyError: It is no file that `export` wrote, or damaged.
    """
    path = Path(path)
    file = family_at(path).read(path)
    contents = file.contents()
    return FileReport(
        path,
        path.stat().st_size,
        file.target_name,
        file.io,
        contents.version,
        file.inputs,
        file.outputs,
        contents.operators,
        contents.constants,
        contents.float_nodes,
        file.labels,
    )
