"""Writing maps of two tensors: both as int32, one operator, then RESCALE."""

from __future__ import annotations

from typing import Any

import numpy as np

from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.product import Product
from ana_fx.operators.sum import Sum
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.aligned_pair import AlignedPair
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.tosa.tosa_rescale import along_last, as_int32, requantized, times
from ana_fx.targets.tosa.tosa_schema import PROPAGATE, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["write_maximum", "write_minimum", "write_mul", "write_sum"]


def write_sum(w: TosaWriter, op: Sum) -> HeldTensor:
    """Write ADD, or SUB where the second tensor has a negative coefficient."""
    first, second = (int(each) for each in w.module.weight)
    if second < 0:
        return _requantized(w, Op.SUB, (first, -second))
    return _requantized(w, Op.ADD, (first, second))


def write_mul(w: TosaWriter, op: Product) -> HeldTensor:
    """Write MUL."""
    return _requantized(w, Op.MUL, (1, 1))


def write_maximum(w: TosaWriter, op: Maximum) -> HeldTensor:
    """Write MAXIMUM."""
    return _requantized(w, Op.MAXIMUM, _coefficients(w), nan_mode=PROPAGATE)


def write_minimum(w: TosaWriter, op: Minimum) -> HeldTensor:
    """Write MINIMUM."""
    return _requantized(w, Op.MINIMUM, _coefficients(w), nan_mode=PROPAGATE)


def _coefficients(w: TosaWriter) -> tuple[int, int]:
    if w.module.weight is None:
        return 1, 1
    first, second = (int(each) for each in w.module.weight)
    return first, second


def _requantized(w: TosaWriter, op: Op, coefficients: tuple[int, int], **attributes: Any) -> HeldTensor:
    """What an operator makes of both, with the sign and the head-room of each channel and its bias, as levels.

    The head-room is in the factors of both already where the operator lets it pass.
    """
    pair, module = AlignedPair.of(w), w.module
    headroom = numpy(module.sign.cpu()) * module.staircase.factor
    inner = int(headroom[0]) if op is not Op.MUL and len(headroom) == 1 and headroom[0] > 0 else 1
    pieces = zip(pair.indices, pair.dims_of, w.inputs, coefficients, strict=True)
    terms = [as_int32(w, index, dims, x.zero_point, c * inner) for index, dims, x, c in pieces]
    if op is Op.MUL:
        terms.append(w.zero(0, "shift"))
    accumulator = times(w, w.int32(op, terms, pair.dims, **attributes), pair.dims, headroom // inner)
    bias = numpy(module.staircase.bias)
    if np.any(bias):
        accumulator = w.int32(Op.ADD, [accumulator, along_last(w, bias, pair.dims, "bias")], pair.dims)
    w.note(op.name, w.target.requantizer.value)
    return w.held(requantized(w, accumulator, pair.dims), pair.image, pair.order)
