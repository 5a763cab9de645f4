"""The tools with which a writer writes one node of a program into a .tflite file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_writer import LayoutWriter
from ana_fx.targets.tflite.model_builder import ModelBuilder, Scales
from ana_fx.targets.tflite.schema import Code, Kind

__all__ = ["TfliteWriter"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TfliteWriter(LayoutWriter):
    """Writes the operators of one node."""

    builder: ModelBuilder

    @property
    def scales(self) -> Scales:
        """Scale and zero point of what the node gives."""
        return Scales(np.float32(self.levels.scale), self.zero_point)

    def tensor(self, dims: Shape, scales: Scales | None = None, suffix: str = "") -> int:
        """Add a tensor that depends on the input, with the node's scale unless another is given; return its index."""
        return self.builder.tensor(self.path + suffix, dims, scales or self.scales)

    def constant(self, array: Array, name: str, scales: Scales | None = None, *, is_int4: bool = False) -> int:
        """Add a tensor with these numbers, two of them in a byte if they have four bits; return its index."""
        self.stored_bytes[name] = -(-array.size // 2) if is_int4 else array.nbytes
        return self.builder.constant(f"{self.path}.{name}", array, scales, is_int4=is_int4)

    def op(self, code: Code, inputs: Sequence[int], dims: Shape, scales: Scales | None = None, **options: Any) -> int:
        """Add an operator; return the index of the tensor that it gives."""
        output = self.tensor(dims, scales)
        self.builder.operator(code, inputs, output, **options)
        return output

    def int32(self, code: Code, inputs: Sequence[int], dims: Shape, **options: Any) -> int:
        """Add an operator; return the index of the tensor of int32 that it gives."""
        output = self.builder.tensor(self.path, dims, None, Kind.INT32)
        self.builder.operator(code, inputs, output, **options)
        return output

    def scales_of(self, x: HeldTensor) -> Scales:
        """Scale and zero point of a tensor of the file."""
        return Scales(x.scale, x.zero_point)

    def reshape(self, x: HeldTensor | None, index: int, dims: Shape, wanted: Shape) -> int:
        """Write RESHAPE, or nothing."""
        return self.reshaped(index, dims, wanted, self.scales if x is None else self.scales_of(x))

    def copied(self, x: HeldTensor, index: int, dims: Shape) -> int:
        """Write a RESHAPE that changes nothing."""
        return self.reshaped(index, dims, dims, self.scales_of(x), is_renamed=True)

    def reshaped(self, index: int, dims: Shape, wanted: Shape, scales: Scales, *, is_renamed: bool = False) -> int:
        """Give a tensor another shape, or other scales if `is_renamed`; return the index of the same integers."""
        if dims == wanted and not is_renamed:
            return index
        assert math.prod(dims) == math.prod(wanted)
        shape = np.array([-1, *wanted], np.int32)
        return self.op(Code.RESHAPE, [index, self.constant(shape, "shape")], wanted, scales, new_shape=shape)

    def transpose(self, x: HeldTensor, index: int, order: Sequence[int], dims: Shape) -> int:
        """Write TRANSPOSE."""
        permutation = np.array([0, *(axis + 1 for axis in order)], np.int32)
        return self.op(Code.TRANSPOSE, [index, self.constant(permutation, "order")], dims, self.scales_of(x))
