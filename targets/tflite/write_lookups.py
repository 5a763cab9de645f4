"""Writing functions of levels: bytes become an index, at which GATHER finds the level.

CAST, ADD and MUL of int32 and GATHER do the same in all kernels, whatever the scales, so that the numbers of the table
alone say what is computed. LOGISTIC and TANH would fill tables of their own, for output scales of 1/256 and 1/128 and
for no other; HARD_SWISH takes any scale, but is off by one in some of its entries. EMBEDDING_LOOKUP, too, reads rows
at indices of int32, and saves nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerTable
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.tflite.held_tensor import HeldTensor, channels_last
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Activation, Code, Kind
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["LARGEST_TABLE", "accumulator_table", "write_accumulator_lookup", "write_table"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

LARGEST_TABLE = 2**16
"""Entries, which are bytes: products of two bytes have 65,026."""


def write_table(w: TfliteWriter, module: IntegerTable) -> HeldTensor:
    """Write a GATHER of the level of each level, in the row of its channel if there are several rows."""
    x, table = w.x, numpy(module.table)
    image, order = x.image, x.order
    if len(table) > 1:
        image, order = x.shape, channels_last(len(x.shape))
    index, dims = w.arranged(x, image, order), tuple(image[axis] for axis in order)
    level = as_int32(w, index, dims, -x.zero_point - module.lowest)
    return w.held(_looked_up(w, level, dims, table), image, order)


def accumulator_table(module: IntegerMap) -> Array:
    """The level of each accumulator, [1 or channels, accumulators], that of the lowest one first."""
    lowest, highest = int(module.lowest.min()), int(module.highest.max())
    accumulators = torch.arange(lowest, highest + 1) * module.sign.cpu()[:, None]
    return numpy(module.multiply_shift.level(accumulators, 0))


def write_accumulator_lookup(w: TfliteWriter, accumulator: int, dims: Shape) -> int:
    """Write a GATHER of the level of each accumulator, int32, of two bytes; its channels lie last."""
    accumulator = _moved(w, accumulator, dims, -int(w.module.lowest.min()))
    return _looked_up(w, accumulator, dims, accumulator_table(w.module))


def as_int32(w: TfliteWriter, x: int, dims: Shape, added: int) -> int:
    """Bytes as int32, plus a number."""
    cast = w.int32(Code.CAST, [x], dims, in_data_type=Kind.INT8, out_data_type=Kind.INT32)
    return _moved(w, cast, dims, added)


def _moved(w: TfliteWriter, x: int, dims: Shape, added: int | Array) -> int:
    """Int32 plus a number, or plus one for each channel."""
    if not np.any(added):
        return x
    constant = w.constant(np.atleast_1d(np.asarray(added, np.int32)), "first")
    return w.int32(Code.ADD, [x, constant], dims, fused_activation_function=Activation.NONE)


def _looked_up(w: TfliteWriter, index: int, dims: Shape, table: Array) -> int:
    """The bytes of the levels at indices into a row, or into the row of each channel."""
    num_rows, size = table.shape
    if num_rows > 1:
        index = _moved(w, index, dims, np.arange(num_rows) * size)
    stored = (table.astype(np.int64) + w.zero_point).ravel().astype(np.int8)
    w.note(Code.GATHER.name, f"table of {math.prod(table.shape)}")
    return w.op(Code.GATHER, [w.constant(stored, "table", Scales(w.scales.scale, w.zero_point)), index], dims, axis=0)
