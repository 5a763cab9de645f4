"""Writing normalisations in standard integer operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ana_fx.operators.normalization import MANTISSA_BITS, MAX_EXPONENT, RESULT_SHIFT, Normalization, root_table
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.builder import sample_shape
from ana_fx.targets.onnx.node_writer import NodeWriter

__all__ = ["write_normalization"]


def write_normalization(w: NodeWriter, op: Normalization) -> ir.Value:
    """Write the formula of `ana_fx.operators.normalization`, in int64; the result is int32, shaped as the input."""
    w = w.typed(ir.DataType.INT64)
    shape = op.row_shape((1, *w.x.shape))[1:]
    single = (*shape[:-1], 1)
    n = w.reshape(w.levels(w.x), shape)
    last = w.axes(len(shape))
    centered, variance = _moments(w, op, n, last)
    root, shift = _inverse_root(w, variance, last)
    bound = w.module.bound
    lift = w.op("Mul", shift, w.number(bound, "bound"), shape=single)  # so that a truncating Div is a floor
    lifted = w.op("Add", w.op("Mul", centered, root, shape=shape), lift, shape=shape)
    quotient = w.op("Sub", w.op("Div", lifted, shift, shape=shape), w.number(bound, "bound"), shape=shape)
    return w.reshape(w.cast(quotient, ir.DataType.INT32, shape), w.x.shape)


def _moments(w: NodeWriter, op: Normalization, n: ir.Value, last: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Write c = D·n − S₁ of each level, and V = D·S₂ − S₁² + E of each row."""
    shape = op.row_shape((1, *w.x.shape))[1:]
    single = (*shape[:-1], 1)
    size = w.number(shape[-1], "length")
    squares = w.op("ReduceSum", _square(w, n, shape), last, shape=single, keepdims=1)
    variance = w.op("Mul", squares, size, shape=single)
    centered = w.op("Mul", n, size, shape=shape)
    if op.is_centered:
        total = w.op("ReduceSum", n, last, shape=single, keepdims=1)
        centered = w.op("Sub", centered, total, shape=shape)
        variance = w.op("Sub", variance, _square(w, total, single), shape=single)
    assert w.weight is not None
    return centered, w.op("Add", variance, w.number(int(w.weight), "epsilon"), shape=single)


def _inverse_root(w: NodeWriter, variance: ir.Value, last: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Write the root r of each row from its table, and the divisor 2^(5 + j)."""
    single = sample_shape(variance)
    wide = (*single[:-1], MAX_EXPONENT)
    powers = w.number(np.array([4**j for j in range(1, MAX_EXPONENT + 1)]), "powers")
    is_reached = w.op("GreaterOrEqual", variance, powers, shape=wide, dtype=ir.DataType.BOOL)
    exponent = w.op("ReduceSum", w.cast(is_reached, w.dtype, wide), last, shape=single, keepdims=1)
    divisors = w.number(np.array([2**j for j in range(MAX_EXPONENT + 1)]), "divisors")
    divisor = w.op("Gather", divisors, exponent, shape=single)
    mantissa = w.op("Mul", variance, w.number(2**MANTISSA_BITS, "one"), shape=single)
    for _ in range(2):  # by 4^j in two steps, as tract divides by 31 bits at most
        mantissa = w.op("Div", mantissa, divisor, shape=single)
    index = w.op("Sub", mantissa, w.number(2**MANTISSA_BITS, "first"), shape=single)
    root = w.op("Gather", w.number(numpy(root_table()), "roots"), index, shape=single)
    shifts = w.number(np.array([2 ** (j + RESULT_SHIFT) for j in range(MAX_EXPONENT + 1)]), "shifts")
    return root, w.op("Gather", shifts, exponent, shape=single)


def _square(w: NodeWriter, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """Write a value times a copy of itself: qonnx cannot rename a tensor that a node reads twice."""
    return w.op("Mul", value, w.op("Identity", value, shape=shape), shape=shape)
