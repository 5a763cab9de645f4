"""The outputs of a model as containers that a graph can make."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["plain"]


def plain(output: Any) -> Any:
    """Return an output as tuples, lists and dictionaries, the only containers that a graph makes."""
    if is_dataclass(output) and not isinstance(output, (dict, type)):
        return {each.name: plain(getattr(output, each.name)) for each in fields(output)}
    if isinstance(output, dict):
        return {key: plain(value) for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        entries = [plain(each) for each in output]
        return tuple(entries) if isinstance(output, tuple) else entries
    return output
