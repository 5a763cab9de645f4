"""Writing functions of levels: TABLE, or GATHER where each channel has a table of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ana_fx.program.integer_modules import IntegerTable
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.tosa.tosa_rescale import along_last, as_int32
from ana_fx.targets.tosa.tosa_schema import DataType, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["looked_up", "write_table"]

Array = np.ndarray[Any, Any]

_BYTES = np.arange(-128, 128)


def write_table(w: TosaWriter, module: IntegerTable) -> HeldTensor:
    """Write the level of each level, from the row of its channel if there are several rows."""
    x, table = w.x, numpy(module.table).astype(np.int64) + w.zero_point
    num_rows, size = table.shape
    if num_rows == 1:
        places = (_BYTES - x.zero_point - module.lowest).clip(0, size - 1)  # no input has the others
        entries = w.constant(table[0][places].astype(np.int8), "table")
        w.note(Op.TABLE.name, f"table of {len(_BYTES)}")
        return w.held(w.op(Op.TABLE, [x.index, entries], x.dims), x.image, x.order)
    image, order = x.shape, channels_last(len(x.shape))
    index, dims = w.arranged(x, image, order), tuple(image[axis] for axis in order)
    starts = np.arange(num_rows) * size - module.lowest
    indices = w.int32(Op.ADD, [as_int32(w, index, dims, x.zero_point), along_last(w, starts, dims, "row")], dims)
    w.note(Op.GATHER.name, f"table of {table.size}")
    return w.held(looked_up(w, indices, dims, table.astype(np.int8).ravel()), image, order)


def looked_up(w: TosaWriter, index: int, dims: Shape, table: Array) -> int:
    """Write a GATHER of entries, bytes or int32, at indices of int32."""
    kind = DataType.INT8 if table.dtype == np.int8 else DataType.INT32
    flat = (math.prod(dims),)
    values = w.constant(table.reshape(1, -1, 1), "table")
    found = w.op(Op.GATHER, [values, w.reshaped(index, dims, flat)], (*flat, 1), kind)
    return w.reshaped(found, (*flat, 1), dims)
