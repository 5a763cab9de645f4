"""Writing maps of images that are linear along each axis."""

from __future__ import annotations

import onnx_ir as ir

from ana_fx.operators.resampling import Resampling
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter

__all__ = ["write_resampling"]


def write_resampling(w: NodeWriter, op: Resampling) -> ir.Value:
    """Write a product with the matrix of each axis, int32."""
    w = w.typed(ir.DataType.INT32)
    value, shape = w.levels(w.x), w.x.shape
    matrices = op.matrices((1, *shape))
    rank = len(shape) + 1
    for axis, matrix in enumerate(matrices, start=rank - len(matrices)):
        array = numpy(matrix)
        order = list(range(rank))
        if axis < rank - 2:
            order[axis], order[-2] = order[-2], order[axis]
            shape = tuple(shape[a - 1] for a in order[1:])
            value = w.op("Transpose", value, shape=shape, perm=order)
        if axis == rank - 1:
            shape = (*shape[:-1], len(array))
            value = w.op("MatMul", value, w.number(array.T.copy(), "matrix"), shape=shape)
        else:
            shape = (*shape[:-2], len(array), shape[-1])
            value = w.op("MatMul", w.number(array, "matrix"), value, shape=shape)
        if axis < rank - 2:
            shape = tuple(shape[a - 1] for a in order[1:])
            value = w.op("Transpose", value, shape=shape, perm=order)
    return value
