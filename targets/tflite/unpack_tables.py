"""From the bytes of a .tflite file that nobody vouches for to plain values.

Offsets are checked before they are followed, tables are counted, and a field that `export` does not write is refused:
the reader of a file says everything of it, or nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ana_fx.targets.tflite.pack_tables import SCALARS
from ana_fx.targets.tflite.schema import FILE_IDENTIFIER, OPTIONS, TABLES

__all__ = ["unpack_model"]

_LETTERS = 64  # that count as much as a table: many strings can lie in one place
_OPTIONS = {number: table for number, table, _ in OPTIONS.values()}


def unpack_model(data: bytes, most_tables: int = 1_000_000) -> dict[str, Any]:
    """Return the fields of the table Model, as `pack_model` takes them; bytes are views of `data`, vectors arrays.

    Args:
        data: The file.
        most_tables: The most tables and strings that it may have.

    Raises:
        ValueError: It is no TFLite file, is cut, has too many tables, or a field that `export` does not write.
    """
    if data[4:8] != FILE_IDENTIFIER:
        raise ValueError("it is no TFLite file")
    reader = _Reader(memoryview(data), most_tables)
    return reader.table("Model", reader.follow(0))


class _Reader:
    """Reads the tables of a file, up to a number of them."""

    def __init__(self, data: memoryview, most_tables: int) -> None:
        self.data = data
        self.left = most_tables

    def number(self, form: str, position: int) -> int:
        """Return the number at a position."""
        if not 0 <= position <= len(self.data) - struct.calcsize(form):
            raise ValueError("it is cut, or no TFLite file")
        return int(struct.unpack_from(form, self.data, position)[0])

    def follow(self, position: int) -> int:
        """Return the position to which the offset at a position leads."""
        return position + self.number("<I", position)

    def table(self, name: str, position: int) -> dict[str, Any]:
        """Return the fields of a table."""
        self._count()
        fields = {number: (key, kind) for key, (number, kind) in TABLES[name].items()}
        slots = position - self.number("<i", position)
        values: dict[str, Any] = {}
        for index in range(max(0, self.number("<H", slots) - 4) // 2):
            offset = self.number("<H", slots + 4 + 2 * index)
            if not offset:
                continue
            if index not in fields:
                raise ValueError(f"found field {index} of a {name}, which export() does not write")
            key, kind = fields[index]
            values[key] = (position + offset, kind)
        return {key: self.value(kind, place, values) for key, (place, kind) in list(values.items())}

    def value(self, kind: str, position: int, siblings: Mapping[str, Any]) -> Any:
        """Return the value of a field, or what the field refers to."""
        if kind in SCALARS:
            return self.scalars(kind, position, 1)[0].item()
        if kind == "options":
            table = _OPTIONS.get(self.number("<B", siblings["options_type"][0]) if "options_type" in siblings else 0)
            if table is None:
                raise ValueError("found options of an operator that export() does not write")
            return table, self.table(table, self.follow(position))
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
        return [self.value(kind, position + 4 * index, {}) for index in range(length)]

    def text(self, position: int, length: int) -> str:
        """Return a string."""
        self._count(1 + length // _LETTERS)
        return bytes(self.scalars("uint8", position, length)).decode("utf-8")

    def scalars(self, kind: str, position: int, length: int) -> np.ndarray[Any, Any]:
        """Return the numbers of a vector as an array."""
        dtype = SCALARS[kind][1]
        if not 0 <= position <= len(self.data) - length * dtype.itemsize:
            raise ValueError("it is cut, or no TFLite file")
        return np.frombuffer(self.data, dtype, length, position)

    def _count(self, number: int = 1) -> None:
        self.left -= number
        if self.left < 0:
            raise ValueError("it has more tables than any file that export() writes")
