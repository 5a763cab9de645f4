"""Writers of accumulators in standard integer operators, which every dialect of ONNX can share.

A writer returns the raw int32 accumulators of a layer map; `ana_fx.targets.writers.write_requantizer` makes levels of
them. An operator that is entered here is written by each dialect that has nothing faster for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.interpolation import Interpolation
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.writers.convolution_attributes import convolution_attributes, window_attributes
from ana_fx.targets.writers.weight_bytes import largest_byte, write_bytes
from ana_fx.targets.writers.write_borders import zero_point_constant
from ana_fx.targets.writers.write_normalization import write_normalization
from ana_fx.targets.writers.write_resampling import write_resampling

__all__ = ["accumulators"]

_LOWEST_BYTE = -128
_UINT8 = ir.DataType.UINT8

accumulators: WriterTable[ir.Value] = WriterTable(__name__)


@accumulators.writes(Sum)
def write_sum(w: NodeWriter, op: Sum) -> ir.Value:
    """Write c₀·n₀ + c₁·n₁."""
    return w.op("Add", *_terms(w))


def _terms(w: NodeWriter) -> list[ir.Value]:
    """Write each tensor times its coefficient."""
    assert w.weight is not None
    return [_term(w, x, coefficient) for x, coefficient in zip(w.inputs, w.weight.tolist(), strict=True)]


def _term(w: NodeWriter, x: StoredTensor, coefficient: float) -> ir.Value:
    if x.constant is not None:
        return w.number(x.constant.astype(np.int64) * coefficient, "constant")
    return w.op("Mul", w.levels(x), w.number(coefficient, "coefficient"), shape=x.shape)


@accumulators.writes(Maximum)
def write_maximum(w: NodeWriter, op: Maximum) -> ir.Value:
    """Write max(c₀·n₀, c₁·n₁)."""
    return w.op("Max", *_terms(w))


@accumulators.writes(Minimum)
def write_minimum(w: NodeWriter, op: Minimum) -> ir.Value:
    """Write min(c₀·n₀, c₁·n₁)."""
    return w.op("Min", *_terms(w))


@accumulators.writes(Product)
def write_product(w: NodeWriter, op: Product) -> ir.Value:
    """Write n₀ · n₁."""
    return w.op("Mul", *(w.levels(x) for x in w.inputs))


@accumulators.writes(MatMul)
def write_matrix_product(w: NodeWriter, op: MatMul) -> ir.Value:
    """Write MatMulInteger of two tensors of levels, unsigned by signed bytes or both alike, within 16 bits in pairs.

    Signed bytes by unsigned ones are not implemented everywhere, and unsigned ones are never added in pairs.
    """
    first, second = w.inputs
    is_wide = 2 * largest_byte(first) * max(second.largest, -second.smallest) > PAIR_LIMIT
    is_lowest = second.smallest == _LOWEST_BYTE  # which NEON multiplies with −128, as it takes byte 0 of unsigned ones
    if second.dtype is _UINT8 or is_wide or is_lowest:
        first, second = _unsigned(w, first), _unsigned(w, second)
    zero_points = []
    if first.zero_point or second.zero_point:
        zero_points = [zero_point_constant(w, x.dtype, x.zero_point) for x in (first, second)]
    return w.op("MatMulInteger", first.value, second.value, *zero_points)


def _unsigned(w: NodeWriter, x: StoredTensor) -> StoredTensor:
    """Write levels as unsigned bytes, signed ones with zero point 128."""
    if x.dtype is _UINT8:
        return x
    if x.constant is not None:
        value = w.constant((x.constant + 128).astype(np.uint8), "constant")
    else:
        value = w.shifted(x.value, 128, _UINT8, x.shape)
    return StoredTensor(value, 128, x.shape, x.largest + 128, x.smallest + 128)


@accumulators.writes(Identity)
def write_identity(w: NodeWriter, op: Identity) -> ir.Value:
    """Write the levels, which are the accumulators."""
    w.note(operator="Cast")
    return w.levels(w.x)


@accumulators.writes(Reduce)
def write_reduction(w: NodeWriter, op: Reduce) -> ir.Value:
    """Write the sum over axes."""
    rank = len(w.x.shape) + 1
    return w.op("ReduceSum", w.levels(w.x), w.axes(*(axis % rank for axis in op.axes)), keepdims=int(op.keepdim))


@accumulators.writes(Normalization)
def write_normalized_rows(w: NodeWriter, op: Normalization) -> ir.Value:
    """Write the formula of `ana_fx.operators.normalization`."""
    w.note(operator="normalization")
    return write_normalization(w, op)


@accumulators.writes(Interpolation)
def write_interpolation(w: NodeWriter, op: Interpolation) -> ir.Value:
    """Write a product with the matrix of each axis."""
    w.note(operator="MatMul")
    return write_resampling(w, op)


@accumulators.writes(Average)
def write_average(w: NodeWriter, op: Average) -> ir.Value:
    """Write the sum over each window; where these are of several sizes, a product with the matrix of each axis."""
    if op.window((1, *w.x.shape)) is None:
        w.note(operator="MatMul")
        return write_resampling(w, op)
    channels = w.x.shape[0]
    weight = torch.ones((channels, 1, *op.kernel), dtype=torch.int32)
    return _convolve(w, weight, window_attributes(op, channels))


@accumulators.writes(Convolution)
def write_convolution(w: NodeWriter, op: Convolution) -> ir.Value:
    """Write ConvInteger, whose kernels add no pairs of products."""
    assert w.weight is not None
    return _convolve(w, w.weight, convolution_attributes(op))


def _convolve(w: NodeWriter, weight: Tensor, attributes: dict[str, Any]) -> ir.Value:
    stored = write_bytes(w, weight, adds_pairs=False)
    return w.op("ConvInteger", w.x.value, w.constant(stored.array, "weight"), *_zero_points(w, 0), **attributes)


@accumulators.writes(Linear)
def write_linear(w: NodeWriter, op: Linear) -> ir.Value:
    """Write MatMulInteger."""
    assert w.weight is not None
    stored = write_bytes(w, w.weight, adds_pairs=True)
    weight = w.constant(stored.array.T.copy(), "weight")
    return w.op("MatMulInteger", w.x.value, weight, *_zero_points(w, stored.zero_point))


def _zero_points(w: NodeWriter, of_weight: int) -> list[ir.Value]:
    """Write the zero points of the input and of the weight, as far as they are not 0."""
    points = []
    if w.x.zero_point or of_weight:
        points.append(zero_point_constant(w, w.x.dtype, w.x.zero_point))
    if of_weight:
        points.append(zero_point_constant(w, _UINT8, of_weight))
    return points
