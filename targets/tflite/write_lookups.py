"""Writing functions of levels: bytes become an index, at which GATHER finds the level.

CAST, ADD and MUL of int32 and GATHER do the same in all kernels, whatever the scales, so that the numbers of the table
alone say what is computed. LOGISTIC and TANH would fill tables of their own, for output scales of 1/256 and 1/128 and
for no other; HARD_SWISH takes any scale, but is off by one in some of its entries. EMBEDDING_LOOKUP, too, reads rows
at indices of int32, and saves nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerTable
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Activation, Code, Kind
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["LARGEST_TABLE", "as_int32", "looked_up", "with_number", "write_accumulator_lookup", "write_table"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

LARGEST_TABLE = 2**16
"""The most entries, of a byte each: products of two bytes need 65,026."""


def write_table(w: TfliteWriter, module: IntegerTable) -> HeldTensor:
    """Write GATHER, which looks each level up in a table, in the row of its channel if the table has several."""
    x, table = w.x, numpy(module.table)
    image, order = x.image, x.order
    if len(table) > 1:
        image, order = x.shape, channels_last(len(x.shape))
    index, dims = w.arranged(x, image, order), tuple(image[axis] for axis in order)
    level = as_int32(w, index, dims, -x.zero_point - module.lowest)
    return w.held(_looked_up(w, level, dims, table), image, order)


def write_accumulator_lookup(w: TfliteWriter, accumulator: int, dims: Shape) -> int:
    """Write GATHER, which looks up the level of each accumulator of two bytes, int32 with the channels last."""
    module: IntegerMap = w.module
    lowest, highest = int(module.lowest.min()), int(module.highest.max())
    accumulators = torch.arange(lowest, highest + 1) * module.sign.cpu()[:, None]
    table = numpy(module.multiply_shift.level(accumulators, 0))
    return _looked_up(w, with_number(w, accumulator, dims, -lowest), dims, table)


def as_int32(w: TfliteWriter, x: int, dims: Shape, added: int = 0) -> int:
    """Write CAST from bytes to int32, and ADD of a number."""
    return with_number(w, w.int32(Code.CAST, [x], dims, in_data_type=Kind.INT8, out_data_type=Kind.INT32), dims, added)


def with_number(w: TfliteWriter, x: int, dims: Shape, added: int | Array, code: Code = Code.ADD) -> int:
    """Write ADD, or MUL, of int32 and a number, or one number for each channel; nothing where that changes nothing."""
    if np.array_equal(added, 0 if code is Code.ADD else 1):
        return x
    constant = w.constant(np.atleast_1d(np.asarray(added, np.int32)), "number")
    return w.int32(code, [x, constant], dims, fused_activation_function=Activation.NONE)


def looked_up(w: TfliteWriter, index: int, dims: Shape, stored: Array, scales: Scales) -> int:
    """Write GATHER of the bytes at indices."""
    return w.op(Code.GATHER, [w.constant(stored.astype(np.int8), "table", scales), index], dims, scales, axis=0)


def _looked_up(w: TfliteWriter, index: int, dims: Shape, table: Array) -> int:
    """Write what looks up the levels at indices into a row, or into the row of each channel."""
    num_rows, size = table.shape
    if num_rows > 1:
        index = with_number(w, index, dims, np.arange(num_rows) * size)
    w.note(Code.GATHER.name, f"table of {table.size}")
    return looked_up(w, index, dims, table.astype(np.int64).ravel() + w.zero_point, w.scales)
