"""`inspect`: what stands in a file."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ana_fx.targets.files.metadata import Border, borders, metadata_of, texts
from ana_fx.targets.files.model_file import read_model
from ana_fx.targets.onnx.writer import FLOAT_TYPE, IO, LABELS, TARGET
from ana_fx.text.plain_text import cell, markup, plain

__all__ = ["FileReport", "inspect"]

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
_MOST_SHOWN = 100
_BORDERS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class FileReport:
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
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self.__rich__())
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

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
                ends.add_row(*map(cell, (kind, each.name, each.dtype.name, each.levels, shape, *numbers)))
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

    Raises:
        VerifyError: It is no file that `export` wrote, or damaged.
    """
    path = Path(path)
    model = read_model(path)
    metadata = metadata_of(model)
    inputs, outputs = borders(model)
    constants: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        constants[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += len(tensor.raw_data)
    return FileReport(
        path,
        path.stat().st_size,
        metadata.get(TARGET, "unknown"),
        metadata.get(IO, "unknown"),
        max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        inputs,
        outputs,
        dict(Counter(node.op_type for node in model.graph.node).most_common()),
        dict(constants.most_common()),
        _float_nodes(model),
        texts(metadata, LABELS),
    )


def _float_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """The nodes that give out floats, but for those that quantise or dequantise."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type not in _BORDERS and any(types.get(name) in _FLOATS for name in node.output)
    )
