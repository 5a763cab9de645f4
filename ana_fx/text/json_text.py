"""Reports as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

__all__ = ["JsonReport", "json_text", "plain_data"]


class JsonReport:
    """A report, a dataclass, that gives its fields as JSON."""

    def to_json(self) -> str:
        """The fields of the report as JSON, indented; enumerations by their value, paths as text."""
        return json_text(self)


def json_text(value: Any) -> str:
    """A report as indented JSON.

    >>> from pathlib import Path
    >>> print(json_text({"path": Path("a.onnx"), "bytes": 3}))
    {
      "path": "a.onnx",
      "bytes": 3
    }
    """
    return json.dumps(plain_data(value), indent=2, ensure_ascii=False, allow_nan=False)


def plain_data(value: Any) -> Any:
    """What JSON holds: dataclasses by their fields, enumerations by their value, anything else as its text.

    Numbers that are infinite or none are text too, since JSON has no word for them.

    >>> from pathlib import Path
    >>> plain_data((1, None, Path("a")))
    [1, None, 'a']
    """
    if is_dataclass(value) and not isinstance(value, type) and fields(value):
        return {each.name: plain_data(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_data(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_data(each) for each in value]
    if isinstance(value, Enum):
        return plain_data(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
