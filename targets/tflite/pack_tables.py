"""From plain values to the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types

from ana_fx.targets.tflite.schema import FILE_IDENTIFIER, TABLES

__all__ = ["SCALARS", "pack_model"]

SCALARS: Mapping[str, tuple[Any, np.dtype[Any]]] = {
    "int8": (number_types.Int8Flags, np.dtype("<i1")),
    "uint8": (number_types.Uint8Flags, np.dtype("<u1")),
    "int32": (number_types.Int32Flags, np.dtype("<i4")),
    "uint32": (number_types.Uint32Flags, np.dtype("<u4")),
    "int64": (number_types.Int64Flags, np.dtype("<i8")),
    "float32": (number_types.Float32Flags, np.dtype("<f4")),
}
"""The scalars of the schema, as `flatbuffers` and as NumPy have them."""

_ALIGNMENT = 16  # of the numbers of a tensor


def pack_model(model: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file.

    Args:
        model: The fields of the schema's table Model. A table is a mapping; where the schema allows one of several
            tables, it is a pair (name, mapping). A field that is left out has the schema's default.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, "Model", model), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, name: str, values: Mapping[str, Any]) -> int:
    """Write a table behind what it refers to; return its offset."""
    fields = TABLES[name]
    places = {key: _place(builder, fields[key][1], value) for key, value in values.items()}
    builder.StartObject(1 + max((number for number, _ in fields.values()), default=-1))
    for key, value in places.items():
        number, kind = fields[key]
        if kind in SCALARS:
            builder.Prepend(SCALARS[kind][0], value)
        else:
            builder.PrependUOffsetTRelative(value)
        builder.Slot(number)
    return int(builder.EndObject())


def _place(builder: flatbuffers.Builder, kind: str, value: Any) -> Any:
    """Return a scalar as it is, or the offset at which a longer value was written."""
    if kind in SCALARS:
        return value
    if kind == "string":
        return builder.CreateString(value)
    if kind == "bytes":
        return _bytes(builder, value)
    if kind == "options":
        return _table(builder, *value)
    if not kind.startswith("["):
        return _table(builder, kind, value)
    return _vector(builder, kind[1:-1], value)


def _vector(builder: flatbuffers.Builder, kind: str, values: Sequence[Any]) -> int:
    if kind in SCALARS:
        return int(builder.CreateNumpyVector(np.asarray(values, SCALARS[kind][1])))
    places = [_place(builder, kind, value) for value in values]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _bytes(builder: flatbuffers.Builder, data: bytes) -> int:
    """Write the numbers of a tensor, aligned so that kernels read them in place; return their offset."""
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())
