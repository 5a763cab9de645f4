"""A .tflite file that was read: its borders, what stands in it, and how it runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ana_fx.targets.channels_last.layout_file import End, LayoutFile, read_checked
from ana_fx.targets.file_family import Contents
from ana_fx.targets.files.metadata import check_metadata
from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.tflite.schema import TFLITE_SCHEMA, Code, Kind

__all__ = ["TfliteFile", "read_tflite"]

Array = np.ndarray[Any, Any]

_BITS = {Kind.FLOAT32: 32, Kind.INT32: 32, Kind.INT8: 8, Kind.INT4: 4}
_LARGEST_SAMPLE = 2**28


class TfliteFile(LayoutFile):
    """A .tflite file.

    Args:
        path: Where it was read.
        data: Its bytes.
        model: What stands in it.
    """

    fallback = "litert"

    def __init__(self, path: Path, data: bytes, model: Mapping[str, Any]) -> None:
        super().__init__(path, data)
        self.model = model
        self.graph: Mapping[str, Any] = model["subgraphs"][0]

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        buffers = self.model["buffers"]
        entries = self.model.get("metadata", [])
        found = {entry["name"]: bytes(buffers[entry["buffer"]]["data"]).decode() for entry in entries}
        check_metadata(found)
        return found

    def contents(self) -> Contents:
        """Its operators and constants; none of them gives floats."""
        codes = [Code(entry.get("builtin_code", 0)).name for entry in self.model["operator_codes"]]
        operators = Counter(codes[each.get("opcode_index", 0)] for each in self.graph["operators"])
        constants: Counter[str] = Counter()
        for tensor in self.graph["tensors"]:
            data = self.model["buffers"][tensor.get("buffer", 0)].get("data", b"")
            constants[Kind(tensor.get("type", 0)).name.lower()] += len(data)
        held = {name: size for name, size in constants.most_common() if size}
        return Contents(int(self.model["version"]), dict(operators.most_common()), held, ())

    def ends(self, kind: str) -> list[End]:
        """Its inputs or outputs, by the names of its signature."""
        names = {each.get("tensor_index", 0): each["name"] for each in self.model["signature_defs"][0][kind]}
        return [self._end(names[int(index)], self.graph["tensors"][int(index)]) for index in self.graph[kind]]

    def _end(self, name: str, tensor: Mapping[str, Any]) -> End:
        dims = tuple(int(size) for size in tensor["shape"][1:])
        return End(name, dims, int(tensor["quantization"]["zero_point"][0]))


def read_tflite(path: Path) -> TfliteFile:
    """Read a .tflite file that nobody vouches for, and check what stands in it.

    Raises:
        VerifyError: It cannot be read, is damaged, or is none that `export` writes.
    """
    return read_checked(path, _read)


def _read(path: Path, data: bytes) -> TfliteFile:
    model = unpack_tables(TFLITE_SCHEMA, data)
    _check(model)
    return TfliteFile(path, data, model)


def _check(model: Mapping[str, Any]) -> None:
    """Refuse tensors whose numbers do not fill their shape, and operators that are unknown or name no tensor."""
    (graph,) = model["subgraphs"]
    tensors, buffers, codes = graph["tensors"], model["buffers"], model["operator_codes"]
    for tensor in tensors:
        sizes = [int(size) for size in tensor["shape"]]
        bits = _BITS[Kind(tensor.get("type", 0))]
        data = buffers[tensor.get("buffer", 0)].get("data")
        if min(sizes, default=0) < 0 or math.prod(sizes) > _LARGEST_SAMPLE:
            raise ValueError(f"tensor {tensor['name']!r} has shape {sizes}")
        if data is not None and len(data) != -(-math.prod(sizes) * bits // 8):
            raise ValueError(f"tensor {tensor['name']!r} of shape {sizes} holds {len(data)} bytes")
    for operator in graph["operators"]:
        Code(codes[operator.get("opcode_index", 0)].get("builtin_code", 0))
        _check_indices([*operator["inputs"], *operator["outputs"]], len(tensors))
    _check_indices([*graph["inputs"], *graph["outputs"]], len(tensors))


def _check_indices(indices: list[Any], count: int) -> None:
    if any(not 0 <= int(index) < count for index in indices):
        raise ValueError("an operator has a tensor that is not there")
