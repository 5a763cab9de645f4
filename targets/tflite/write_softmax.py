"""Writing softmax: the formula of `ana_fx.layers.softmax_map`, by operators on int32 that are exact in all kernels.

SOFTMAX itself is not: for one number in some hundred thousand LiteRT gives another level than its own reference kernels
and TFLite Micro. And its levels are parts of 1 / 256, while a program's highest level, 255 or 15, is 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ana_fx.program.integer_modules import IntegerSoftmax
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Activation, Code, Kind
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_lookups import as_int32, looked_up, with_number
from ana_fx.targets.tflite.write_moves import strided_slice

__all__ = ["write_softmax"]

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

_UNIT, _MIDDLE = 2**8, 2**6  # exponentials of up to 2**15 are 2**8 · (a byte + 2**6) and a byte
_PLAIN = Scales(np.float32(1))


def write_softmax(w: TfliteWriter, module: IntegerSoftmax) -> HeldTensor:
    """Write REDUCE_MAX, SUB, GATHER of the exponentials, their sum, and DIV, over the last axis of a matrix."""
    x, axis = w.x, module.axis % (len(w.shape) + 1) - 1
    order = (*(each for each in range(len(w.shape)) if each != axis), axis)
    dims = tuple(w.shape[each] for each in order)
    rows, one = (math.prod(dims[:-1]), dims[-1]), (math.prod(dims[:-1]), 1)
    levels = w.reshaped(w.arranged(x, w.shape, order), dims, rows, w.scales_of(x))
    last = w.constant(np.array([2], np.int32), "axis")
    largest = w.op(Code.REDUCE_MAX, [levels, last], one, w.scales_of(x), keep_dims=1)
    distance = _binary(w, Code.SUB, as_int32(w, largest, one), as_int32(w, levels, rows), rows)
    exponentials = _exponentials(w, distance, rows, numpy(module.table))
    total = _total(w, exponentials, rows)
    if module.is_nearest:
        doubled = with_number(w, exponentials, rows, 2 * module.highest, Code.MUL)
        dividend, divisor = _binary(w, Code.ADD, doubled, total, rows), with_number(w, total, one, 2, Code.MUL)
    else:
        dividend, divisor = with_number(w, exponentials, rows, module.highest, Code.MUL), total
    quotient = with_number(w, _binary(w, Code.DIV, dividend, divisor, rows), rows, w.zero_point)
    index = w.op(Code.CAST, [quotient], rows, in_data_type=Kind.INT32, out_data_type=Kind.INT8)
    w.note("GATHER, DIV", "int32")
    return w.held(w.reshaped(index, rows, dims, w.scales), w.shape, order)


def _exponentials(w: TfliteWriter, distance: int, dims: Shape, table: Array) -> int:
    """Look up entries of a table of int32, of which TFLite Micro's GATHER knows none, by two tables of bytes."""
    upper = (table + _UNIT // 2) // _UNIT
    first = looked_up(w, distance, dims, upper - _MIDDLE, _PLAIN)
    second = looked_up(w, distance, dims, table - upper * _UNIT, _PLAIN)
    multiple = with_number(w, as_int32(w, first, dims, _MIDDLE), dims, _UNIT, Code.MUL)
    return _binary(w, Code.ADD, multiple, as_int32(w, second, dims), dims)


def _total(w: TfliteWriter, terms: int, dims: Shape) -> int:
    """Add up each row by adding its halves until one number is left; TFLite Micro's SUM knows no int32."""
    (rows, size), odd = dims, []
    while size > 1:
        half = size // 2
        if size % 2:
            odd.append(_columns(w, terms, rows, size - 1, size))
        halves = _columns(w, terms, rows, 0, half), _columns(w, terms, rows, half, 2 * half)
        terms, size = _binary(w, Code.ADD, *halves, (rows, half)), half
    for each in odd:
        terms = _binary(w, Code.ADD, terms, each, (rows, 1))
    return terms


def _columns(w: TfliteWriter, x: int, rows: int, start: int, stop: int) -> int:
    return strided_slice(w, x, [(0, rows, 1), (start, stop, 1)], None)


def _binary(w: TfliteWriter, code: Code, first: int, second: int, dims: Shape) -> int:
    return w.int32(code, [first, second], dims, fused_activation_function=Activation.NONE)
