"""Writers of functions of levels: tables, and softmax."""

from __future__ import annotations

import numpy as np

from ana_fx.program.integer_modules import IntegerSoftmax, IntegerTable
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable

__all__ = ["functions"]

functions: WriterTable[StoredTensor] = WriterTable(__name__)


@functions.writes(IntegerTable)
def write_table(w: NodeWriter, module: IntegerTable) -> StoredTensor:
    """Write a Gather of the stored level of each stored level."""
    dtype, zero_point = w.container
    index = w.cast(w.x.value, w.dtype)
    first = -(module.lowest + w.x.zero_point)
    if first:
        index = w.op("Add", index, w.number(first, "first"))
    num_channels, num_levels = module.table.shape
    if num_channels > 1:
        rows = np.arange(num_channels).reshape(-1, *[1] * (len(w.shape) - 1)) * num_levels
        index = w.op("Add", index, w.number(rows, "rows"))
    stored = (numpy(module.table).astype(np.int64) + zero_point).flatten()
    table = w.constant(stored.astype(dtype.numpy()), "table")
    w.note(operator="Gather", arithmetic="table")
    return w.stored(w.op("Gather", table, index, dtype=dtype))


@functions.writes(IntegerSoftmax)
def write_softmax(w: NodeWriter, module: IntegerSoftmax) -> StoredTensor:
    """Write the formula of `ana_fx.layers.softmax_map`, in int32."""
    dtype, zero_point = w.container
    axis = module.axis % (len(w.shape) + 1)
    reduced = tuple(1 if a == axis else size for a, size in enumerate(w.shape, start=1))
    n = w.cast(w.x.value, w.dtype)
    largest = w.op("ReduceMax", n, w.axes(axis), shape=reduced, keepdims=1)
    distance = w.op("Sub", largest, n)
    e = w.op("Gather", w.number(numpy(module.table), "exponentials"), distance)
    total = w.op("ReduceSum", e, w.axes(axis), shape=reduced, keepdims=1)
    value = w.op("Mul", e, w.number(2 * module.highest if module.is_nearest else module.highest, "factor"))
    if module.is_nearest:
        value = w.op("Add", value, total)
        total = w.op("Mul", total, w.number(2, "two"), shape=reduced)
    value = w.op("Div", value, total)
    if zero_point:
        value = w.op("Add", value, w.number(zero_point, "zero_point"))
    w.note(operator="Gather, Div", arithmetic="int32")
    return w.stored(w.cast(value, dtype), 0, module.highest)
