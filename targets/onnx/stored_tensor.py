"""Levels as a file stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

__all__ = ["Container", "StoredTensor"]


class Container(NamedTuple):
    """The type in which a dialect stores levels, and what it adds to them: stored number = level + zero point."""

    dtype: ir.DataType
    zero_point: int


@dataclass(frozen=True)
class StoredTensor:
    """A value of the file that carries levels: stored number = level + zero_point.

    Args:
        value: The value.
        zero_point: The stored number of level 0.
        shape: That of one sample; of a constant, which has no batch axis, the whole shape.
        largest: The largest stored number that occurs.
        smallest: The smallest stored number that occurs.
        constant: The levels, of a constant.
        is_real: Whether the value carries reals instead, which a float layer gives.
    """

    value: ir.Value
    zero_point: int
    shape: tuple[int, ...]
    largest: int = 255
    smallest: int = -128
    constant: np.ndarray[Any, Any] | None = None
    is_real: bool = False

    @property
    def dtype(self) -> ir.DataType:
        """The stored type."""
        assert self.value.dtype is not None
        return self.value.dtype
