"""Writing softmax: the formula of `ana_fx.layers.softmax_map`, by operators on int32."""

from __future__ import annotations

import math

import numpy as np

from ana_fx.program.integer_modules import IntegerSoftmax
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.tosa.tosa_lookups import looked_up
from ana_fx.targets.tosa.tosa_rescale import as_byte, as_int32, times
from ana_fx.targets.tosa.tosa_schema import PROPAGATE, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["write_softmax"]


def write_softmax(w: TosaWriter, module: IntegerSoftmax) -> HeldTensor:
    """Write REDUCE_MAX, SUB, GATHER of the exponentials, REDUCE_SUM, and INTDIV, over the last axis of a matrix."""
    x, axis = w.x, module.axis % (len(w.shape) + 1) - 1
    order = (*(each for each in range(len(w.shape)) if each != axis), axis)
    dims = tuple(w.shape[each] for each in order)
    rows, one = (math.prod(dims[:-1]), dims[-1]), (math.prod(dims[:-1]), 1)
    levels = w.reshaped(w.arranged(x, w.shape, order), dims, rows)
    largest = w.op(Op.REDUCE_MAX, [levels], one, axis=2, nan_mode=PROPAGATE)
    ends = as_int32(w, largest, one, x.zero_point), as_int32(w, levels, rows, x.zero_point)
    exponentials = looked_up(w, w.int32(Op.SUB, ends, rows), rows, numpy(module.table).astype(np.int32))
    total = w.int32(Op.REDUCE_SUM, [exponentials], one, axis=2)
    quotient = w.int32(Op.INTDIV, _division(w, module, exponentials, total, rows), rows)
    w.note("GATHER, INTDIV", "int32")
    return w.held(w.reshaped(as_byte(w, quotient, rows), rows, dims), w.shape, order)


def _division(w: TosaWriter, module: IntegerSoftmax, exponentials: int, total: int, rows: Shape) -> tuple[int, int]:
    """What is divided by what: parts of the total, rounded to the nearest or down."""
    one = (rows[0], 1)
    if not module.is_nearest:
        return times(w, exponentials, rows, np.array([module.highest])), total
    doubled = times(w, exponentials, rows, np.array([2 * module.highest]))
    return w.int32(Op.ADD, [doubled, total], rows), times(w, total, one, np.array([2]))
