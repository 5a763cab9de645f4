"""From plain values to the bytes of a FlatBuffers file.

No package but `flatbuffers` is needed for it, which onnxruntime brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types

from ana_fx.targets.files.flat_schema import FlatSchema

__all__ = ["SCALARS", "pack_tables"]

SCALARS: Mapping[str, tuple[Any, np.dtype[Any]]] = {
    "int8": (number_types.Int8Flags, np.dtype("<i1")),
    "uint8": (number_types.Uint8Flags, np.dtype("<u1")),
    "int32": (number_types.Int32Flags, np.dtype("<i4")),
    "uint32": (number_types.Uint32Flags, np.dtype("<u4")),
    "int64": (number_types.Int64Flags, np.dtype("<i8")),
    "float32": (number_types.Float32Flags, np.dtype("<f4")),
}
"""The scalars of schemas, as `flatbuffers` and as NumPy have them."""


def pack_tables(schema: FlatSchema, values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file.

    Args:
        schema: Says what its tables are.
        values: The fields of the root table. A table is a mapping; where the schema allows one of several tables, it
            is a pair (name, mapping). A field that is left out has the schema's default.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_Packer(schema, builder).table(schema.root, values), schema.identifier)
    return bytes(builder.Output())


class _Packer:
    """Writes tables, each behind what it refers to."""

    def __init__(self, schema: FlatSchema, builder: flatbuffers.Builder) -> None:
        self.schema = schema
        self.builder = builder

    def table(self, name: str, values: Mapping[str, Any]) -> int:
        """Write a table behind what it refers to; return its offset."""
        fields = self.schema.tables[name]
        places = {key: self._place(fields[key][1], value) for key, value in values.items()}
        self.builder.StartObject(1 + max((number for number, _ in fields.values()), default=-1))
        for key, value in places.items():
            number, kind = fields[key]
            if kind in SCALARS:
                self.builder.Prepend(SCALARS[kind][0], value)
            else:
                self.builder.PrependUOffsetTRelative(value)
            self.builder.Slot(number)
        return int(self.builder.EndObject())

    def _place(self, kind: str, value: Any) -> Any:
        """Return a scalar as it is, or the offset at which a longer value was written."""
        if kind in SCALARS:
            return value
        if kind == "string":
            return self.builder.CreateString(value)
        if kind == "bytes":
            return self._bytes(value)
        if kind == "union":
            return self.table(*value)
        if not kind.startswith("["):
            return self.table(kind, value)
        return self._vector(kind[1:-1], value)

    def _vector(self, kind: str, values: Sequence[Any]) -> int:
        if kind in SCALARS:
            return int(self.builder.CreateNumpyVector(np.asarray(values, SCALARS[kind][1])))
        places = [self._place(kind, value) for value in values]
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
        return int(self.builder.EndVector())

    def _bytes(self, data: bytes) -> int:
        """Write the numbers of a tensor, aligned so that kernels read them in place; return their offset."""
        self.builder.StartVector(1, len(data), self.schema.alignment)
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return int(self.builder.EndVector())
