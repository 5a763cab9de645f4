"""A .tflite file that was read: its borders, what stands in it, and how it runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.targets.file_family import Contents, ExportedFile, FileRun
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import check_metadata, read_border
from ana_fx.targets.files.regular_file import read_regular_file, reason_of
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.tflite.schema import Code, Kind
from ana_fx.targets.tflite.tflite_program import ORDER
from ana_fx.targets.tflite.unpack_tables import unpack_model
from ana_fx.text.plain_text import plain

__all__ = ["TfliteFile", "read_tflite"]

Array = np.ndarray[Any, Any]

_LARGEST = 2**31 - 1  # what the offsets of a flatbuffer can hold
_LONGEST_REASON = 500
_BITS = {Kind.FLOAT32: 32, Kind.INT32: 32, Kind.INT8: 8, Kind.INT4: 4}
_LARGEST_SAMPLE = 2**28


class TfliteFile(ExportedFile):
    """A .tflite file.

    Its borders are described as the program has them: images with the channels first, unsigned levels as uint8. The
    file takes int8 with the channels last; `run` brings one into the other.

    Args:
        path: Where it was read.
        data: Its bytes.
        model: What stands in it.
    """

    fallback = "litert"

    def __init__(self, path: Path, data: bytes, model: Mapping[str, Any]) -> None:
        super().__init__(path)
        self.data = data
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

    @property
    def inputs(self) -> tuple[Border, ...]:
        """Its inputs."""
        return tuple(self._border(entry) for entry in self._ends("inputs"))

    @property
    def outputs(self) -> tuple[Border, ...]:
        """Its outputs."""
        return tuple(self._border(entry) for entry in self._ends("outputs"))

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

    def run(self, runtime: Runtime, feeds: Mapping[str, Array]) -> FileRun:
        """Run it on the program's integers, and return its outputs with the axes and the type that the program has.

        Raises:
            VerifyError: It takes other inputs, or does not run.
        """
        inputs, outputs = self._ends("inputs"), self._ends("outputs")
        shapes, given = [each.shape for each in self.inputs], [array.shape[1:] for array in feeds.values()]
        if shapes != given:
            raise VerifyError(
                f"{self.path} does not take this program's inputs: samples of {given}, needed {shapes}; "
                f"needed a file that export() wrote from this program"
            )
        stored = {
            entry["name"]: self._stored(entry, array) for entry, array in zip(inputs, feeds.values(), strict=True)
        }
        try:
            found = runtime.run(self.data, stored)
        except Exception as error:  # the runtimes' errors share no base
            reason = plain(reason_of(error), _LONGEST_REASON)
            raise VerifyError(
                f"{self.path} does not run in {runtime.title} on this program's inputs: {reason}; "
                f"needed a file that export() wrote from this program, and a runtime that reads its target"
            ) from error
        return FileRun([self._natural(entry, each) for entry, each in zip(outputs, found, strict=True)], [])

    def float_tolerance(self, run: FileRun) -> float:
        """It has no float layer."""
        return 0.0

    def _ends(self, kind: str) -> list[dict[str, Any]]:
        """The names and tensors of its inputs or outputs, in their order."""
        names = {each.get("tensor_index", 0): each["name"] for each in self.model["signature_defs"][0][kind]}
        return [{"name": names[int(index)], "tensor": self.graph["tensors"][int(index)]} for index in self.graph[kind]]

    def _border(self, entry: Mapping[str, Any]) -> Border:
        name = entry["name"]
        kind = self.metadata.get(f"{name}.type", "")
        dtype = np.dtype(np.uint8 if kind.startswith("uint") else np.int8)
        dims = tuple(int(size) for size in entry["tensor"]["shape"][1:])
        order = self._order(name, len(dims))
        shape = tuple(dims[order.index(axis)] for axis in range(len(dims)))
        border = read_border(name, dtype, shape, self.metadata)
        point = int(entry["tensor"]["quantization"]["zero_point"][0])
        if (point, order) == (border.zero_point, tuple(range(len(dims)))):
            return border
        return replace(border, held=f"int8 {'x'.join(('N', *map(str, dims)))}, zero point {point}")

    def _order(self, name: str, rank: int) -> tuple[int, ...]:
        """The axes of a program's sample as they follow each other in the file."""
        text = self.metadata.get(f"{name}.{ORDER}", "")
        order = tuple(int(axis) for axis in text.split("x") if axis.isdigit())
        if sorted(order) != list(range(rank)):
            raise VerifyError(
                f"the metadata of {self.path} do not say in which order {plain(name)!r} has its axes; "
                f"needed a file that ana_fx.export wrote"
            )
        return order

    def _moved(self, entry: Mapping[str, Any]) -> int:
        """By how much the stored integers are larger than the program's."""
        point = int(entry["tensor"]["quantization"]["zero_point"][0])
        return point - self._border(entry).zero_point

    def _stored(self, entry: Mapping[str, Any], array: Array) -> Array:
        order = self._order(entry["name"], array.ndim - 1)
        moved = array.astype(np.int16) + self._moved(entry)
        return np.ascontiguousarray(moved.transpose(0, *(axis + 1 for axis in order)).astype(np.int8))

    def _natural(self, entry: Mapping[str, Any], array: Array) -> Array:
        order = self._order(entry["name"], array.ndim - 1)
        back = (0, *(order.index(axis) + 1 for axis in range(len(order))))
        levels = array.astype(np.int16).transpose(back) - self._moved(entry)
        return np.ascontiguousarray(levels.astype(self._border(entry).dtype))


def read_tflite(path: Path) -> TfliteFile:
    """Read a .tflite file that nobody vouches for, and check what stands in it.

    Raises:
        VerifyError: It cannot be read, is damaged, or is none that `export` writes.
    """
    try:
        data = read_regular_file(path, _LARGEST)
        model = unpack_model(data)
        _check(model)
        file = TfliteFile(path, data, model)
        _ = file.metadata, file.inputs, file.outputs
    except (MemoryError, VerifyError):
        raise
    except Exception as error:  # those of the system and of what is missing in the tables share no base
        raise VerifyError(f"cannot load {path}: {reason_of(error)}; needed a file that export() wrote") from error
    return file


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
