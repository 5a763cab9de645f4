"""The part of a schema of FlatBuffers that a family of files writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Field", "FlatSchema"]

Field = tuple[int, str]
"""Number and type: a scalar, "string", "bytes", "union", the name of a table, or one of these in brackets.

A field `x` of type "union" holds one of several tables; the field `x_type` says which.
"""


@dataclass(frozen=True)
class FlatSchema:
    """For each table its fields, by their number in the schema, which never gives a number to another field.

    Args:
        title: What its files are called.
        identifier: The four bytes that each of them has behind its first offset.
        root: The table that a file is.
        tables: The fields of each table, by name.
        unions: The tables of its union, by their number there.
        alignment: Of the numbers of a tensor, in bytes.
    """

    title: str
    identifier: bytes
    root: str
    tables: Mapping[str, Mapping[str, Field]]
    unions: Mapping[int, str]
    alignment: int = 16
