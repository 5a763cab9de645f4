"""From the bytes of a FlatBuffers file that nobody vouches for to plain values.

Offsets are checked before they are followed, tables are counted, and a field that `export` does not write is refused:
the reader of a file says everything of it, or nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ana_fx.targets.files.flat_schema import FlatSchema
from ana_fx.targets.files.pack_tables import SCALARS

__all__ = ["unpack_tables"]

_LETTERS = 64  # that count as much as a table: many strings can lie in one place


def unpack_tables(schema: FlatSchema, data: bytes, most_tables: int = 1_000_000) -> dict[str, Any]:
    """Return the fields of the root table, as `pack_tables` takes them; bytes are views of `data`, vectors arrays.

    Args:
        schema: Says what its tables are.
        data: The file.
        most_tables: The most tables and strings that it may have.

    Raises:
        ValueError: It is no such file, is cut, has too many tables, or a field that `export` does not write.
    """
    if data[4:8] != schema.identifier:
        raise ValueError(f"it is no {schema.title} file")
    reader = _Reader(schema, memoryview(data), most_tables)
    return reader.table(schema.root, reader.follow(0))


class _Reader:
    """Reads the tables of a file, up to a number of them."""

    def __init__(self, schema: FlatSchema, data: memoryview, most_tables: int) -> None:
        self.schema = schema
        self.data = data
        self.left = most_tables

    def number(self, form: str, position: int) -> int:
        """Return the number at a position."""
        if not 0 <= position <= len(self.data) - struct.calcsize(form):
            raise ValueError(f"it is cut, or no {self.schema.title} file")
        return int(struct.unpack_from(form, self.data, position)[0])

    def follow(self, position: int) -> int:
        """Return the position to which the offset at a position leads."""
        return position + self.number("<I", position)

    def table(self, name: str, position: int) -> dict[str, Any]:
        """Return the fields of a table."""
        self._count()
        fields = {number: (key, kind) for key, (number, kind) in self.schema.tables[name].items()}
        slots = position - self.number("<i", position)
        values: dict[str, tuple[int, str]] = {}
        for index in range(max(0, self.number("<H", slots) - 4) // 2):
            offset = self.number("<H", slots + 4 + 2 * index)
            if not offset:
                continue
            if index not in fields:
                raise ValueError(f"found field {index} of a {name}, which export() does not write")
            key, kind = fields[index]
            values[key] = (position + offset, kind)
        return {
            key: self.union(place, values.get(f"{key}_type")) if kind == "union" else self.value(kind, place)
            for key, (place, kind) in values.items()
        }

    def union(self, position: int, type_field: tuple[int, str] | None) -> tuple[str, dict[str, Any]]:
        """The name and the values of a table that is one of several."""
        table = self.schema.unions.get(self.number("<B", type_field[0]) if type_field else 0)
        if table is None:
            raise ValueError("found options of an operator that export() does not write")
        return table, self.table(table, self.follow(position))

    def value(self, kind: str, position: int) -> Any:
        """Return the value of a field, or what the field refers to."""
        if kind in SCALARS:
            return self.scalars(kind, position, 1)[0].item()
        place = self.follow(position)
        if kind not in ("string", "bytes") and not kind.startswith("["):
            return self.table(kind, place)
        length = self.number("<I", place)
        if kind == "string":
            return self.text(place + 4, length)
        if kind == "bytes":
            return self.scalars("uint8", place + 4, length).data
        return self.vector(kind[1:-1], place + 4, length)

    def vector(self, kind: str, position: int, length: int) -> Any:
        """Return the entries of a vector."""
        if kind in SCALARS:
            return self.scalars(kind, position, length)
        self.scalars("uint32", position, length)  # all are there
        return [self.value(kind, position + 4 * index) for index in range(length)]

    def text(self, position: int, length: int) -> str:
        """Return a string."""
        self._count(1 + length // _LETTERS)
        return bytes(self.scalars("uint8", position, length)).decode("utf-8")

    def scalars(self, kind: str, position: int, length: int) -> np.ndarray[Any, Any]:
        """Return the numbers of a vector as an array."""
        dtype = SCALARS[kind][1]
        if not 0 <= position <= len(self.data) - length * dtype.itemsize:
            raise ValueError(f"it is cut, or no {self.schema.title} file")
        return np.frombuffer(self.data, dtype, length, position)

    def _count(self, number: int = 1) -> None:
        self.left -= number
        if self.left < 0:
            raise ValueError("it has more tables than any file that export() writes")
