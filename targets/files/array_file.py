"""Text and arrays in one file, in the layout of safetensors: a length, a JSON header, bytes.

Nothing in such a file is code, and its size bounds what reading it can take: arrays are neither compressed nor may
they share bytes. The header is

    {"__metadata__": {key: text}, name: {"dtype": "I8", "shape": [2, 3], "data_offsets": [0, 6]}, …}
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["pack", "parse_json", "unpack"]

_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_LARGEST_HEADER = 2**24
_LARGEST_RANK = 16
_DTYPES = {
    "BOOL": torch.bool,
    "F32": torch.float32,
    "F64": torch.float64,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def pack(metadata: Mapping[str, str], arrays: Mapping[str, Tensor]) -> bytes:
    """The file; the same bytes for the same content.

    Raises:
        ValueError: An array has a type that such files do not hold here, or the text is too long.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    chunks, end = [], 0
    for name, tensor in arrays.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(f"found an array of {tensor.dtype}, needed one of {', '.join(map(str, _NAMES))}")
        chunks.append(tensor.detach().cpu().contiguous().numpy().tobytes())
        start, end = end, end + len(chunks[-1])
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _LARGEST_HEADER:
        raise ValueError(f"the description takes {len(text):,} bytes, needed at most {_LARGEST_HEADER:,}")
    return b"".join([_LENGTH.pack(len(text)), text, *chunks])


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Text and arrays of a file; the arrays are copies.

    Raises:
        ValueError: It is no such file.
    """
    if len(data) < _LENGTH.size:
        raise ValueError(f"found {len(data)} bytes, needed at least {_LENGTH.size}")
    (length,) = _LENGTH.unpack_from(data)
    if length > min(_LARGEST_HEADER, len(data) - _LENGTH.size):
        raise ValueError(f"found a header of {length:,} bytes in a file of {len(data):,}")
    header = parse_json(data[_LENGTH.size : _LENGTH.size + length].decode())
    if not isinstance(header, dict):
        raise ValueError("found a header that is no object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("found metadata that are no text")
    content = memoryview(data)[_LENGTH.size + length :]
    arrays: dict[str, Tensor] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _start(item[1])):
        arrays[name], end = _array(name, entry, content, end)
    if end != len(content):
        raise ValueError(f"found {len(content):,} bytes of arrays, needed {end:,}")
    return metadata, arrays


def parse_json(text: str) -> Any:
    """What a JSON text says, without two meanings: no key twice, no NaN; ValueError if it is none."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("found JSON that is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("found JSON with a key twice")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"found {name}, which is not JSON")


def _start(entry: Any) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(each) is int for each in offsets):
        raise ValueError("found an array without its place")
    return int(offsets[0])


def _array(name: str, entry: dict[str, Any], content: memoryview, expected: int) -> tuple[Tensor, int]:
    """One array, which begins where the one before ended."""
    start, end = entry["data_offsets"]
    shape, dtype = entry.get("shape"), _DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise ValueError(f"found an array of {str(entry.get('dtype'))[:20]!r}, needed one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _LARGEST_RANK or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"found an array of shape {str(shape)[:50]}, needed positive sizes")
    if start != expected or end > len(content) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"found an array {name[:20]!r} of {str(shape)[:50]} that does not fill its place")
    return torch.frombuffer(bytearray(content[start:end]), dtype=dtype).reshape(shape), end
