"""Collects the tensors and operators of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.tflite.schema import OPTIONS, TFLITE_SCHEMA, Code, Kind

__all__ = ["ModelBuilder", "Scales"]

Array = np.ndarray[Any, Any]

_KINDS = {np.dtype(np.int8): Kind.INT8, np.dtype(np.int32): Kind.INT32}
_INT4_VERSIONS = {Code.CONV_2D: 7, Code.DEPTHWISE_CONV_2D: 6, Code.FULLY_CONNECTED: 10}
"""LiteRT counts the second as 7, but registers its reference kernel, which takes such weights, up to 6."""
_SCHEMA_VERSION = 3
_DYNAMIC = -1
_SIGNATURE = "serving_default"
_SIGNATURE_OF_SHAPE = "shape_signature"


@dataclass(frozen=True)
class Scales:
    """What the integers of a tensor stand for: real = (stored − zero_point) · scale.

    Args:
        scale: Float32, one, or one for each channel.
        zero_point: The integer that stands for 0.
        axis: The axis of the channels, where each has a scale.
    """

    scale: Array | np.float32
    zero_point: int = 0
    axis: int = 0


class ModelBuilder:
    """Collects tensors, operators and metadata, then packs them.

    Tensors that depend on the input have a leading batch axis of 1, which readers may resize unless an operator
    `takes_one_sample`.
    """

    def __init__(self) -> None:
        self.tensors: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = [{}]  # the first one is that of tensors without numbers
        self.operators: list[dict[str, Any]] = []
        self.codes: dict[tuple[Code, int], int] = {}
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self.takes_one_sample = False
        self._constants: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def tensor(self, name: str, shape: Sequence[int], scales: Scales | None, kind: Kind = Kind.INT8) -> int:
        """Add a tensor that depends on the input, with samples of that shape; return its index."""
        return self._add(name, (1, *shape), scales, {"type": kind, _SIGNATURE_OF_SHAPE: [_DYNAMIC, *shape]})

    def constant(self, name: str, array: Array, scales: Scales | None = None, *, is_int4: bool = False) -> int:
        """Add a tensor with these numbers; return its index, or that of an equal one which was added without scales."""
        data = _nibbles(array) if is_int4 else array.astype(array.dtype.newbyteorder("<")).tobytes()
        key = (array.dtype.str, array.shape, data)
        if scales is None and key in self._constants:
            return self._constants[key]
        kind = Kind.INT4 if is_int4 else _KINDS[array.dtype]
        index = self._add(name, array.shape, scales, {"type": kind, "buffer": self._buffer(data)})
        if scales is None:
            self._constants[key] = index
        return index

    def operator(self, code: Code, inputs: Sequence[int], output: int, **options: Any) -> None:
        """Add an operator with one output."""
        number, table, version = OPTIONS[code]
        if any(self.tensors[index]["type"] == Kind.INT4 for index in inputs):
            version = _INT4_VERSIONS[code]
        opcode = self.codes.setdefault((code, version), len(self.codes))
        entry = {"opcode_index": opcode, "inputs": inputs, "outputs": [output]}
        self.operators.append(entry | {"options_type": number, "options": (table, options)})

    def pack(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """Return the bytes of the file."""
        notes = [{"name": key, "buffer": self._buffer(text.encode())} for key, text in metadata.items()]
        signature = {
            "inputs": [{"name": key, "tensor_index": index} for key, index in self.inputs.items()],
            "outputs": [{"name": key, "tensor_index": index} for key, index in self.outputs.items()],
            "signature_key": _SIGNATURE,
            "subgraph_index": 0,
        }
        fixed = {_SIGNATURE_OF_SHAPE} if self.takes_one_sample else set()
        graph = {
            "tensors": [{key: each[key] for key in each if key not in fixed} for each in self.tensors],
            "inputs": list(self.inputs.values()),
            "outputs": list(self.outputs.values()),
            "operators": self.operators,
            "name": name,
        }
        codes = [{"deprecated_builtin_code": c, "version": v, "builtin_code": c} for c, v in self.codes]
        model = {"version": _SCHEMA_VERSION, "operator_codes": codes, "subgraphs": [graph], "description": "ana_fx"}
        return pack_tables(
            TFLITE_SCHEMA, model | {"buffers": self.buffers, "metadata": notes, "signature_defs": [signature]}
        )

    def _add(self, name: str, shape: Sequence[int], scales: Scales | None, rest: Mapping[str, Any]) -> int:
        entry: dict[str, Any] = {"shape": list(shape), "name": name, **rest}
        if scales is not None:
            scale = np.atleast_1d(np.asarray(scales.scale, np.float32))
            points = np.full(len(scale), scales.zero_point)
            entry["quantization"] = {"scale": scale, "zero_point": points, "quantized_dimension": scales.axis}
        self.tensors.append(entry)
        return len(self.tensors) - 1

    def _buffer(self, data: bytes) -> int:
        self.buffers.append({"data": data})
        return len(self.buffers) - 1


def _nibbles(array: Array) -> bytes:
    """Pack two integers of four bits into each byte, the first one into its lower half."""
    flat = array.astype(np.uint8).ravel() & 0xF
    padded = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return bytes(padded[::2] | padded[1::2] << 4)
