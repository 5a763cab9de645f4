"""Operations on integers that no single operator of ONNX computes, in standard operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from ana_fx.operators.normalization import MANTISSA_BITS, MAX_EXPONENT, RESULT_SHIFT, Normalization, root_table
from ana_fx.program.integer_modules import IntegerSoftmax, IntegerTable
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.emitter import Carrier, numpy

__all__ = [
    "Scribe",
    "levels",
    "write_normalization",
    "write_reduction",
    "write_resampling",
    "write_softmax",
    "write_table",
]


class Scribe:
    """Writes the nodes of one module, all in one integer type, with constants where they are read."""

    def __init__(self, builder: Builder, path: str, dtype: ir.DataType = ir.DataType.INT32) -> None:
        self.builder = builder
        self.path = path
        self.dtype = dtype

    def op(
        self,
        op_type: str,
        inputs: list[ir.Value],
        shape: tuple[int, ...],
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """A node whose output has that sample shape."""
        return self.builder.op(
            op_type, inputs, path=self.path, dtype=dtype or self.dtype, shape=shape, attributes=attributes
        )

    def cast(self, value: ir.Value, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        """A value as another type."""
        if value.dtype is dtype:
            return value
        return self.op("Cast", [value], shape, dtype, to=dtype)

    def square(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """A value times a copy of itself: qonnx cannot rename a tensor that a node reads twice."""
        return self.op("Mul", [value, self.op("Identity", [value], shape)], shape)

    def number(self, value: int | np.ndarray[Any, Any], name: str) -> ir.Value:
        """A constant of the type of this scribe."""
        return self.builder.constant(np.asarray(value, self.dtype.numpy()), f"{self.path}.{name}")

    def axes(self, *axes: int) -> ir.Value:
        """Axes, as the operators that reduce take them."""
        return self.builder.constant(np.array(axes, np.int64), f"{self.path}.axes")


def levels(scribe: Scribe, x: Carrier) -> ir.Value:
    """The levels that a carrier stores, in the type of the scribe."""
    if x.constant is not None:
        return scribe.number(x.constant, "constant")
    value = scribe.cast(x.value, scribe.dtype, x.shape)
    if x.zero_point == 0:
        return value
    return scribe.op("Sub", [value, scribe.number(x.zero_point, "zero_point")], x.shape)


def write_table(
    scribe: Scribe, module: IntegerTable, x: Carrier, shape: tuple[int, ...], dtype: ir.DataType, zero_point: int
) -> ir.Value:
    """Gather the stored level of each stored level."""
    index = scribe.cast(x.value, scribe.dtype, shape)
    first = -(module.lowest + x.zero_point)
    if first:
        index = scribe.op("Add", [index, scribe.number(first, "first")], shape)
    num_channels, num_levels = module.table.shape
    if num_channels > 1:
        rows = np.arange(num_channels).reshape(-1, *[1] * (len(shape) - 1)) * num_levels
        index = scribe.op("Add", [index, scribe.number(rows, "rows")], shape)
    stored = (numpy(module.table).astype(np.int64) + zero_point).flatten()
    table = scribe.builder.constant(stored.astype(dtype.numpy()), f"{scribe.path}.table")
    return scribe.op("Gather", [table, index], shape, dtype)


def write_softmax(
    scribe: Scribe, module: IntegerSoftmax, x: Carrier, shape: tuple[int, ...], dtype: ir.DataType, zero_point: int
) -> ir.Value:
    """The formula of `ana_fx.layers.softmax_map`, in int32."""
    axis = module.axis % (len(shape) + 1)
    reduced = tuple(1 if a == axis else size for a, size in enumerate(shape, start=1))
    n = scribe.cast(x.value, scribe.dtype, shape)
    largest = scribe.op("ReduceMax", [n, scribe.axes(axis)], reduced, keepdims=1)
    distance = scribe.op("Sub", [largest, n], shape)
    e = scribe.op("Gather", [scribe.number(numpy(module.table), "exponentials"), distance], shape)
    total = scribe.op("ReduceSum", [e, scribe.axes(axis)], reduced, keepdims=1)
    factor = 2 * module.highest if module.is_nearest else module.highest
    value = scribe.op("Mul", [e, scribe.number(factor, "factor")], shape)
    if module.is_nearest:
        value = scribe.op("Add", [value, total], shape)
        total = scribe.op("Mul", [total, scribe.number(2, "two")], reduced)
    value = scribe.op("Div", [value, total], shape)
    if zero_point:
        value = scribe.op("Add", [value, scribe.number(zero_point, "zero_point")], shape)
    return scribe.cast(value, dtype, shape)


def write_normalization(
    builder: Builder, path: str, operator: Normalization, epsilon: Tensor, bound: int, x: Carrier
) -> ir.Value:
    """The formula of `ana_fx.operators.normalization`, in int64; the result is int32, shaped as the input."""
    scribe = Scribe(builder, path, ir.DataType.INT64)
    shape = operator.row_shape((1, *x.shape))[1:]
    length, single = shape[-1], (*shape[:-1], 1)
    n = builder.reshape(levels(scribe, x), shape, path=path)
    last = scribe.axes(len(shape))
    size = scribe.number(length, "length")
    squares = scribe.op("ReduceSum", [scribe.square(n, shape), last], single, keepdims=1)
    variance = scribe.op("Mul", [squares, size], single)
    centered = scribe.op("Mul", [n, size], shape)
    if operator.is_centered:
        total = scribe.op("ReduceSum", [n, last], single, keepdims=1)
        centered = scribe.op("Sub", [centered, total], shape)
        variance = scribe.op("Sub", [variance, scribe.square(total, single)], single)
    variance = scribe.op("Add", [variance, scribe.number(int(epsilon), "epsilon")], single)
    powers = scribe.number(np.array([4**j for j in range(1, MAX_EXPONENT + 1)]), "powers")
    wide = (*single[:-1], MAX_EXPONENT)
    reached = scribe.cast(scribe.op("GreaterOrEqual", [variance, powers], wide, ir.DataType.BOOL), scribe.dtype, wide)
    exponent = scribe.op("ReduceSum", [reached, last], single, keepdims=1)
    divisors = scribe.number(np.array([2**j for j in range(MAX_EXPONENT + 1)]), "divisors")
    divisor = scribe.op("Gather", [divisors, exponent], single)
    mantissa = scribe.op("Mul", [variance, scribe.number(2**MANTISSA_BITS, "one")], single)
    for _ in range(2):  # by 4^j in two steps, as tract divides by 31 bits at most
        mantissa = scribe.op("Div", [mantissa, divisor], single)
    index = scribe.op("Sub", [mantissa, scribe.number(2**MANTISSA_BITS, "first")], single)
    root = scribe.op("Gather", [scribe.number(numpy(root_table()), "roots"), index], single)
    shifts = scribe.number(np.array([2 ** (j + RESULT_SHIFT) for j in range(MAX_EXPONENT + 1)]), "shifts")
    shift = scribe.op("Gather", [shifts, exponent], single)
    lift = scribe.op("Mul", [shift, scribe.number(bound, "bound")], single)  # so that a truncating Div is a floor
    lifted = scribe.op("Add", [scribe.op("Mul", [centered, root], shape), lift], shape)
    quotient = scribe.op("Sub", [scribe.op("Div", [lifted, shift], shape), scribe.number(bound, "bound")], shape)
    value = scribe.cast(quotient, ir.DataType.INT32, shape)
    return builder.reshape(value, x.shape, path=path)


def write_resampling(builder: Builder, path: str, matrices: tuple[Tensor, ...], x: Carrier) -> ir.Value:
    """A product with the matrix of each axis, int32."""
    scribe = Scribe(builder, path)
    value, shape = levels(scribe, x), x.shape
    rank = len(shape) + 1
    for axis, matrix in enumerate(matrices, start=rank - len(matrices)):
        array = numpy(matrix)
        order = list(range(rank))
        if axis < rank - 2:
            order[axis], order[-2] = order[-2], order[axis]
            shape = tuple(shape[a - 1] for a in order[1:])
            value = scribe.op("Transpose", [value], shape, perm=order)
        if axis == rank - 1:
            shape = (*shape[:-1], len(array))
            value = scribe.op("MatMul", [value, scribe.number(array.T.copy(), "matrix")], shape)
        else:
            shape = (*shape[:-2], len(array), shape[-1])
            value = scribe.op("MatMul", [scribe.number(array, "matrix"), value], shape)
        if axis < rank - 2:
            shape = tuple(shape[a - 1] for a in order[1:])
            value = scribe.op("Transpose", [value], shape, perm=order)
    return value


def write_reduction(
    builder: Builder, path: str, axes: tuple[int, ...], keepdim: bool, x: Carrier, shape: tuple[int, ...]
) -> ir.Value:
    """The sum over axes, int32."""
    scribe = Scribe(builder, path)
    rank = len(x.shape) + 1
    inputs = [levels(scribe, x), scribe.axes(*(axis % rank for axis in axes))]
    return scribe.op("ReduceSum", inputs, shape, keepdims=int(keepdim))
