"""The tools with which a writer writes one node of a program into a .tflite file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ana_fx.program.tensor_spec import LevelRange
from ana_fx.target import Target
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.tflite.held_tensor import HeldTensor, zero_point_of
from ana_fx.targets.tflite.model_builder import ModelBuilder, Scales
from ana_fx.targets.tflite.schema import Code, Kind

__all__ = ["TfliteWriter"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TfliteWriter:
    """Writes the operators of one node.

    Args:
        builder: Collects the operators of the file.
        target: What the file is for.
        path: Path of the node's module; it begins the name of each tensor.
        module: The module.
        inputs: What the node reads.
        shape: Sample shape of what it gives.
        levels: The levels of what it gives.
        notes: What the report of the node will say.
        stored_bytes: Bytes of each of its constants in the file, by name.
    """

    builder: ModelBuilder
    target: Target
    path: str
    module: Any
    inputs: tuple[HeldTensor, ...]
    shape: Shape
    levels: LevelRange
    notes: dict[str, Any] = field(default_factory=dict)
    stored_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def x(self) -> HeldTensor:
        """The first input."""
        return self.inputs[0]

    @property
    def zero_point(self) -> int:
        """The integer that stands for level 0 of what the node gives."""
        assert self.levels.integer_type is not None
        return zero_point_of(self.levels.integer_type)

    @property
    def scales(self) -> Scales:
        """Scale and zero point of what the node gives."""
        return Scales(np.float32(self.levels.scale), self.zero_point)

    def note(self, operator: str, arithmetic: str) -> None:
        """Say in the report which operator computes the node, and how it requantises."""
        self.notes.update(operator=operator, arithmetic=arithmetic)

    def report(self) -> NodeReport:
        """Report how the node stands in the file."""
        return NodeReport(self.path, **self.notes).with_weights(self.module, self.stored_bytes)

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

    def held(self, index: int, image: Shape, order: Shape, shape: Shape | None = None) -> HeldTensor:
        """Return a tensor of the file as what the node gives: the numbers of `image` with its axes in `order`."""
        scale = np.float32(self.levels.scale)
        return HeldTensor(index, self.zero_point, scale, self.levels.lo, shape or self.shape, image, order)

    def moved(self, x: HeldTensor, index: int, image: Shape, order: Shape) -> HeldTensor:
        """Return a tensor of the file as what a node gives that leaves the levels of an input as they are."""
        return replace(x, index=index, shape=self.shape, image=image, order=order)

    def arranged(self, x: HeldTensor, image: Shape, order: Shape) -> int:
        """Put the numbers of an input in the order of `image` with its axes in `order`; return the index of the tensor.

        Nothing is written if they are in that order already.
        """
        dims = tuple(image[axis] for axis in order)
        if x.lies(image, order):
            return self.reshaped(x.index, x.dims, dims, self.scales_of(x))
        if x.image == image:
            return self._transposed(x, x.index, [x.order.index(axis) for axis in order], dims)
        plain = x.index
        if x.order != tuple(sorted(x.order)):
            plain = self._transposed(x, plain, [x.order.index(axis) for axis in range(len(x.order))], x.image)
        plain = self.reshaped(plain, x.image, image, self.scales_of(x))
        return plain if order == tuple(sorted(order)) else self._transposed(x, plain, order, dims)

    def reshaped(self, index: int, dims: Shape, wanted: Shape, scales: Scales, *, is_renamed: bool = False) -> int:
        """Give a tensor another shape, or other scales if `is_renamed`; return the index of the same integers."""
        if dims == wanted and not is_renamed:
            return index
        assert math.prod(dims) == math.prod(wanted)
        shape = np.array([-1, *wanted], np.int32)
        return self.op(Code.RESHAPE, [index, self.constant(shape, "shape")], wanted, scales, new_shape=shape)

    def _transposed(self, x: HeldTensor, index: int, order: Sequence[int], dims: Shape) -> int:
        permutation = np.array([0, *(axis + 1 for axis in order)], np.int32)
        return self.op(Code.TRANSPOSE, [index, self.constant(permutation, "order")], dims, self.scales_of(x))
