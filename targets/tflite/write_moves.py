"""Writing what only moves numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ana_fx.program.data_movement import Pad, Slice, Take
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Code
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_pads import write_pad

__all__ = ["strided_slice", "write_slice", "write_take", "write_zeros"]


def write_slice(w: TfliteWriter, module: Slice) -> HeldTensor:
    """Write STRIDED_SLICE."""
    x = w.as_shaped()
    index = strided_slice(w, x.index, [module.slices[axis] for axis in x.order], w.scales_of(x))
    return w.moved(x, index, w.shape, x.order)


def strided_slice(w: TfliteWriter, x: int, slices: Sequence[tuple[int, int, int]], scales: Scales | None) -> int:
    """Write STRIDED_SLICE of bytes, or of int32 without scales: (start, stop, step) along each axis of a sample."""
    begin, end, step = ([first, *(each[part] for each in slices)] for part, first in enumerate((0, 0, 1)))
    names = zip((begin, end, step), ("begin", "end", "step"), strict=True)
    constants = [w.constant(np.array(numbers, np.int32), name) for numbers, name in names]
    dims = tuple(len(range(*each)) for each in slices)
    masks = {"begin_mask": 1, "end_mask": 1}  # all of the batch
    inputs = [x, *constants]
    if scales is None:
        return w.int32(Code.STRIDED_SLICE, inputs, dims, **masks)
    return w.op(Code.STRIDED_SLICE, inputs, dims, scales, **masks)


def write_take(w: TfliteWriter, module: Take) -> HeldTensor:
    """Write GATHER."""
    x = w.as_shaped()
    indices = w.constant(module.index.cpu().numpy().astype(np.int32), "index")
    dims = tuple(w.shape[axis] for axis in x.order)
    axis = 1 + x.order.index(module.axis - 1)
    index = w.op(Code.GATHER, [x.index, indices], dims, w.scales_of(x), axis=axis)
    return w.moved(x, index, w.shape, x.order)


def write_zeros(w: TfliteWriter, module: Pad) -> HeldTensor:
    """Write PAD."""
    x = w.as_shaped()
    dims = tuple(x.shape[axis] for axis in x.order)
    index, _ = write_pad(w, x.index, dims, [module.padding[axis] for axis in x.order], w.scales_of(x))
    return w.moved(x, index, w.shape, x.order)
