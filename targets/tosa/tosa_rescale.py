"""Between levels and int32, by RESCALE.

    RESCALE   (value · multiplier + 2**(shift − 1)) >> shift   SINGLE_ROUND, 0 <= multiplier < 2**31, 2 <= shift <= 62

with |value| below 2**(shift − 1), and a result of 32 bits. That is the single rounding of
`ana_fx.requantizers.fixed_point_staircase`: its M is the multiplier, and 31 less its exponent the shift.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.tosa.tosa_schema import PROPAGATE, SINGLE_ROUND, DataType, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["MULTIPLIER_BITS", "along_last", "as_byte", "as_int32", "clamped", "requantized", "times"]

Array = np.ndarray[Any, Any]
Numbers = tuple[type, int]
"""A type, and its zero point."""

MULTIPLIER_BITS = 31
_LOWEST, _HIGHEST = -128, 127
_INT32: Numbers = (np.int32, 0)


def requantized(w: TosaWriter, accumulator: int, dims: Shape) -> int:
    """Write the levels of stored accumulators, bias included, int32, whose channels lie last."""
    staircase = w.module.staircase
    assert isinstance(staircase, FixedPointStaircase)
    multiplier, exponent = (numpy(each) for each in staircase.fixed_point())
    scale = (multiplier, MULTIPLIER_BITS - exponent)
    index = _rescale(w, accumulator, dims, scale, _INT32, (np.int8, w.zero_point))
    return clamped(w, index, dims)


def clamped(w: TosaWriter, index: int, dims: Shape) -> int:
    """Write CLAMP where the node has fewer levels than a byte."""
    lowest, highest = w.module.lo + w.zero_point, w.module.hi + w.zero_point
    if (lowest, highest) == (_LOWEST, _HIGHEST):
        return index
    ends = {"min_val": np.int8(lowest).tobytes(), "max_val": np.int8(highest).tobytes()}
    return w.op(Op.CLAMP, [index], dims, nan_mode=PROPAGATE, **ends)


def as_int32(w: TosaWriter, x: int, dims: Shape, zero_point: int, factor: int = 1) -> int:
    """Write bytes as int32, times a factor."""
    size = abs(factor)
    shift = MULTIPLIER_BITS - size.bit_length()
    scale = (np.array([size << shift]), np.array([shift]))
    index = _rescale(w, x, dims, scale, (np.int8, zero_point), _INT32)
    return index if factor > 0 else times(w, index, dims, np.array([-1]))


def as_byte(w: TosaWriter, x: int, dims: Shape) -> int:
    """Write levels of int32 as the node has them."""
    shift = MULTIPLIER_BITS - 1
    return _rescale(w, x, dims, (np.array([1 << shift]), np.array([shift])), _INT32, (np.int8, w.zero_point))


def times(w: TosaWriter, x: int, dims: Shape, factors: Array) -> int:
    """Write int32 times a number, or times one for each channel."""
    if (factors == 1).all():
        return x
    return w.int32(Op.MUL, [x, along_last(w, factors, dims, "factor"), w.zero(0, "shift")], dims)


def along_last(w: TosaWriter, values: Array, dims: Shape, name: str) -> int:
    """Numbers of int32 as a constant that broadcasts along the last axis."""
    return w.constant(values.astype(np.int32).reshape(*[1] * len(dims), -1), name)


def _rescale(w: TosaWriter, x: int, dims: Shape, scale: tuple[Array, Array], source: Numbers, result: Numbers) -> int:
    """Write RESCALE by multipliers and shifts, from one type to another."""
    multiplier, shift = scale
    constants = [w.constant(multiplier.astype(np.int32), "multiplier"), w.constant(shift.astype(np.int8), "shift")]
    constants += [w.zero(zero_point, dtype=dtype) for dtype, zero_point in (source, result)]
    return w.op(
        Op.RESCALE,
        [x, *constants],
        dims,
        DataType.INT32 if result == _INT32 else DataType.INT8,
        scale32=1,
        rounding_mode=SINGLE_ROUND,
        per_channel=int(len(multiplier) > 1),
        input_unsigned=0,
        output_unsigned=0,
    )
