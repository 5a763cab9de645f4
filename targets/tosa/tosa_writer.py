"""What a writer has in hand while it writes one node of a program into a .tosa file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_writer import LayoutWriter, Shape
from ana_fx.targets.tosa.graph_builder import GraphBuilder
from ana_fx.targets.tosa.tosa_schema import DataType, Op

__all__ = ["TosaWriter"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TosaWriter(LayoutWriter):
    """Writes the operators of one node."""

    builder: GraphBuilder

    def op(self, op: Op, inputs: Sequence[int], dims: Shape, kind: DataType = DataType.INT8, **attributes: Any) -> int:
        """An operator, and the tensor that it gives; `dims` is the shape of its samples."""
        output = self.builder.tensor(self.path, dims, kind)
        self.builder.operator(op, inputs, output, **attributes)
        return output

    def int32(self, op: Op, inputs: Sequence[int], dims: Shape, **attributes: Any) -> int:
        """An operator, and the tensor of int32 that it gives."""
        return self.op(op, inputs, dims, DataType.INT32, **attributes)

    def constant(self, array: Array, name: str) -> int:
        """A tensor with numbers."""
        self.stored_bytes[name] = array.nbytes
        return self.builder.constant(f"{self.path}.{name}", array)

    def zero(self, number: int, name: str = "zero_point", dtype: type = np.int8) -> int:
        """A tensor with one number, a zero point or what pads."""
        return self.builder.constant(f"{self.path}.{name}", np.array([number], dtype))

    def dims(self, values: Sequence[int], name: str = "shape") -> int:
        """A constant shape, the batch included."""
        return self.builder.shape(f"{self.path}.{name}", values)

    def reshape(self, x: HeldTensor | None, index: int, dims: Shape, wanted: Shape) -> int:
        """Write RESHAPE, or nothing."""
        return self.reshaped(index, dims, wanted)

    def reshaped(self, index: int, dims: Shape, wanted: Shape) -> int:
        """The same, of numbers that need be no levels."""
        if dims == wanted:
            return index
        assert math.prod(dims) == math.prod(wanted)
        return self.op(Op.RESHAPE, [index, self.dims((1, *wanted))], wanted, self.kind_of(index))

    def kind_of(self, index: int) -> DataType:
        """The type of a tensor."""
        return DataType(self.builder.tensors[index]["type"])

    def transpose(self, x: HeldTensor, index: int, order: Sequence[int], dims: Shape) -> int:
        """Write TRANSPOSE."""
        return self.op(Op.TRANSPOSE, [index], dims, self.kind_of(index), perms=[0, *(axis + 1 for axis in order)])

    def copied(self, x: HeldTensor, index: int, dims: Shape) -> int:
        """Write IDENTITY."""
        return self.op(Op.IDENTITY, [index], dims, self.kind_of(index))
