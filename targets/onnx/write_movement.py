"""Writing movements as ONNX: no number changes, so every operator works on levels of any type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ana_fx.program.data_movement import Concat, Movement, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.targets.onnx.builder import Builder, sample_shape
from ana_fx.targets.onnx.emitter import numpy

__all__ = ["write_movement"]


def write_movement(
    builder: Builder, path: str, module: Movement, inputs: Sequence[ir.Value], zero_point: int, shape: tuple[int, ...]
) -> ir.Value:
    """Write one module on values that store level + zero_point.

    Args:
        builder: Collects the nodes.
        path: The module's path in the program.
        module: One of the movements.
        inputs: Values of one type, with their shapes.
        zero_point: The stored number that stands for zero.
        shape: Sample shape of the result.

    Returns:
        The result, of the same type. Its leading axis has another name than "N" where the module changes its
        length: onnxruntime takes two axes of one name for equal when it shares memory.
    """
    return _Writer(builder, path, zero_point).write(module, list(inputs), shape)


class _Writer:
    """The operators of one module."""

    def __init__(self, builder: Builder, path: str, zero_point: int) -> None:
        self.builder = builder
        self.path = path
        self.zero_point = zero_point

    def write(self, module: Movement, inputs: list[ir.Value], shape: tuple[int, ...]) -> ir.Value:
        value = inputs[0]
        if isinstance(module, Reshape):
            return self._reshape(value, shape)
        if isinstance(module, Permute):
            return self._op("Transpose", [value], shape, {"perm": list(module.order)})
        if isinstance(module, Slice):
            return self._slice(value, module.slices, shape)
        if isinstance(module, Take):
            index = self.builder.constant(numpy(module.index), f"{self.path}.index")
            return self._op("Gather", [value, index], shape, {"axis": module.axis})
        if isinstance(module, Pad):
            return self._pad(value, module.padding, shape)
        if isinstance(module, Concat):
            return self._concat(inputs, module.axis, shape)
        assert isinstance(module, Rearrange)
        return self._rearrange(module, inputs, shape)

    def _reshape(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self.builder.reshape(value, shape, path=self.path)

    def _slice(self, value: ir.Value, slices: Sequence[tuple[int, int, int]], shape: tuple[int, ...]) -> ir.Value:
        whole = [(0, size, 1) for size in sample_shape(value)]
        cut = [axis for axis, each in enumerate(slices) if each != whole[axis]] or [0]
        starts, stops, steps = zip(*(slices[axis] for axis in cut), strict=True)
        bounds = {"starts": starts, "ends": stops, "axes": [axis + 1 for axis in cut], "steps": steps}
        return self._op("Slice", [value, *(self._integers(each, name) for name, each in bounds.items())], shape)

    def _pad(self, value: ir.Value, padding: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> ir.Value:
        before, after = zip((0, 0), *padding, strict=True)
        zero = np.asarray(self.zero_point, _dtype(value).numpy())
        inputs = [value, self._integers([*before, *after], "pads"), self.builder.constant(zero, f"{self.path}.zero")]
        return self._op("Pad", inputs, shape)

    def _concat(self, values: list[ir.Value], axis: int, shape: tuple[int, ...]) -> ir.Value:
        return self._op("Concat", values, shape, {"axis": axis})

    def _rearrange(self, module: Rearrange, inputs: list[ir.Value], shape: tuple[int, ...]) -> ir.Value:
        index, size = module.index, sum(module.sizes)
        flat = [self._reshape(value, (each,)) for value, each in zip(inputs, module.sizes, strict=True)]
        value = flat[0] if len(flat) == 1 else self._concat(flat, 1, (size,))
        if bool((index == 0).any()):
            value = self._pad(value, [(1, 0)], (size + 1,))
        else:
            index = index - 1
        constant = self.builder.constant(numpy(index), f"{self.path}.index")
        return self._reshape(self._op("Gather", [value, constant], (len(index),), {"axis": 1}), shape)

    def _op(
        self, op_type: str, inputs: list[ir.Value], shape: tuple[int, ...], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """A node whose result has the type of its first input."""
        return self.builder.op(
            op_type, inputs, path=self.path, dtype=_dtype(inputs[0]), shape=shape, attributes=attributes
        )

    def _integers(self, numbers: Sequence[int], name: str) -> ir.Value:
        return self.builder.constant(np.array(numbers, np.int64), f"{self.path}.{name}")


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype
