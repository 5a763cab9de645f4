"""A .tosa file that was read: its borders, what stands in it, and how it runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ana_fx.targets.channels_last.layout_file import End, LayoutFile, read_checked
from ana_fx.targets.file_family import Contents
from ana_fx.targets.files.array_file import parse_json
from ana_fx.targets.files.metadata import check_metadata
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tosa.tosa_program import HELD_ZERO_POINT
from ana_fx.targets.tosa.tosa_schema import TOSA_SCHEMA, DataType, Op

__all__ = ["TosaFile", "read_tosa"]

_LARGEST_TENSOR = 2**28
_BYTES = {DataType.INT8: 1, DataType.INT32: 4}
_BYTES_OF_SIZE = 8
_LOWEST, _HIGHEST = -128, 127


class TosaFile(LayoutFile):
    """A .tosa file.

    Args:
        path: Where it was read.
        data: Its bytes.
        graph: What stands in it.
    """

    fallback = "tosa"

    def __init__(self, path: Path, data: bytes, graph: Mapping[str, Any]) -> None:
        super().__init__(path, data)
        self.graph = graph
        self.block: Mapping[str, Any] = graph["regions"][0]["blocks"][0]

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, in the location of its first operator."""
        found = parse_json(self.block["operators"][0]["location"]["text"])
        if not isinstance(found, dict) or any(not isinstance(each, str) for each in found.values()):
            raise ValueError("the location of its first operator is no JSON of texts")
        check_metadata(found)
        return found

    @cached_property
    def tensors(self) -> dict[str, Mapping[str, Any]]:
        """Its tensors by name."""
        return {each["name"]: each for each in self.block["tensors"]}

    def ends(self, kind: str) -> list[End]:
        """Its inputs or outputs."""
        return [self._end(name) for name in self.block[kind]]

    def contents(self) -> Contents:
        """Its operators and constants; none of them gives floats."""
        operators = Counter(Op(each["op"]).name for each in self.block["operators"])
        constants: Counter[str] = Counter()
        for tensor in self.tensors.values():
            constants[DataType(tensor["type"]).name.lower()] += len(tensor.get("data", b""))
        held = {name: size for name, size in constants.most_common() if size}
        return Contents(int(self.graph["version"]["_major"]), dict(operators.most_common()), held, ())

    def _end(self, name: str) -> End:
        tensor, zero_point = self.tensors[name], int(self.metadata[f"{name}.{HELD_ZERO_POINT}"])
        if not _LOWEST <= zero_point <= _HIGHEST:
            raise ValueError(f"{name!r} has zero point {zero_point}")
        dtype = DataType(tensor["type"]).name.lower()
        return End(name, tuple(int(size) for size in tensor["shape"][1:]), zero_point, dtype)


def read_tosa(path: Path) -> TosaFile:
    """Read a .tosa file that nobody vouches for, and check what stands in it.

    Raises:
        VerifyError: It cannot be read, is damaged, or is none that `export` writes.
    """
    return read_checked(path, _read)


def _read(path: Path, data: bytes) -> TosaFile:
    graph = unpack_tables(TOSA_SCHEMA, data)
    _check(graph)
    return TosaFile(path, data, graph)


def _check(graph: Mapping[str, Any]) -> None:
    """Refuse tensors that do not have the numbers that they should, and operators that read what nothing gave."""
    (region,) = graph["regions"]
    (block,) = region["blocks"]
    for tensor in block["tensors"]:
        sizes = [int(size) for size in tensor["shape"]]
        if min(sizes, default=1) < 1 or math.prod(sizes) > _LARGEST_TENSOR:
            raise ValueError(f"tensor {tensor['name']!r} has shape {sizes}")
        _check_data(tensor, math.prod(sizes) * _BYTES[DataType(tensor["type"])])
    for shape in block["shapes"]:
        _check_data(shape, int(shape.get("rank", 0)) * _BYTES_OF_SIZE)
    names = [each["name"] for each in (*block["tensors"], *block["shapes"])]
    known = set(block["inputs"])
    if len(set(names)) != len(names) or not known <= set(names):
        raise ValueError("its tensors do not have a name each")
    for operator in block["operators"]:
        if Op(operator["op"]) != operator["attribute_type"]:
            raise ValueError("an operator has the attributes of another one")
        if not known.issuperset(operator["inputs"]) or not set(operator["outputs"]) <= set(names) - known:
            raise ValueError("an operator has a tensor that is not there")
        known |= set(operator["outputs"])
    if not known.issuperset(block["outputs"]):
        raise ValueError("an output is not there")


def _check_data(entry: Mapping[str, Any], size: int) -> None:
    if "data" in entry and len(entry["data"]) != size:
        raise ValueError(f"{entry['name']!r} holds {len(entry['data'])} bytes, needed {size}")
