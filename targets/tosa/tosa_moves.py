"""Writing what moves numbers: SLICE, PAD, GATHER, CONCAT and MAX_POOL2D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ana_fx.program.data_movement import Concat, Pad, Slice, Take
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.tosa.tosa_schema import PROPAGATE, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["gathered", "sliced", "write_concat", "write_slice", "write_take", "write_zeros"]

Array = np.ndarray[Any, Any]

_RANK_OF_IMAGES = 3


def sliced(w: TosaWriter, x: int, dims: Shape, slices: Sequence[tuple[int, int, int]]) -> int:
    """Write SLICE of bytes: (start, stop, step) along each axis of a sample; nothing if all is taken.

    For steps, which SLICE does not know, a MAX_POOL2D of single bytes follows, and GATHER where that cannot be.
    """
    taken = [range(*each) for each in slices]
    starts = [min(each) for each in taken]
    sizes = tuple(max(each) + 1 - start for each, start in zip(taken, starts, strict=True))
    if sizes != dims:
        x = w.op(Op.SLICE, [x, w.dims((0, *starts), "start"), w.dims((1, *sizes), "size")], sizes)
    steps = [step for _, _, step in slices]
    wanted = tuple(len(each) for each in taken)
    if len(sizes) == _RANK_OF_IMAGES and min(steps) > 0 and steps[-1] == 1 and max(steps) > 1:
        return w.op(Op.MAX_POOL2D, [x], wanted, kernel=[1, 1], stride=steps[:2], pad=[0, 0, 0, 0], nan_mode=PROPAGATE)
    for axis, (each, start) in enumerate(zip(taken, starts, strict=True)):
        if each.step != 1:
            x = gathered(w, x, sizes, axis, np.array(each) - start)
            sizes = (*sizes[:axis], len(each), *sizes[axis + 1 :])
    return x


def gathered(w: TosaWriter, x: int, dims: Shape, axis: int, indices: Array) -> int:
    """Write GATHER along an axis of a sample: TOSA's has one axis before it, and one behind."""
    before, behind = math.prod(dims[:axis]), math.prod(dims[axis + 1 :])
    every = np.broadcast_to(indices.astype(np.int32), (before, len(indices)))
    flat = w.builder.tensor(w.path, (dims[axis], behind), batch=before)  # its batch is the axis before
    w.builder.operator(Op.RESHAPE, [x, w.dims((before, dims[axis], behind))], flat)
    found = w.builder.tensor(w.path, (len(indices), behind), batch=before)
    w.builder.operator(Op.GATHER, [flat, w.constant(every, "index")], found)
    wanted = (*dims[:axis], len(indices), *dims[axis + 1 :])
    return w.op(Op.RESHAPE, [found, w.dims((1, *wanted))], wanted)


def write_slice(w: TosaWriter, module: Slice) -> HeldTensor:
    """Write SLICE."""
    x = w.as_shaped()
    return w.moved(x, sliced(w, x.index, x.dims, [module.slices[axis] for axis in x.order]), w.shape, x.order)


def write_take(w: TosaWriter, module: Take) -> HeldTensor:
    """Write GATHER."""
    x = w.as_shaped()
    index = gathered(w, x.index, x.dims, x.order.index(module.axis - 1), module.index.cpu().numpy())
    return w.moved(x, index, w.shape, x.order)


def write_zeros(w: TosaWriter, module: Pad) -> HeldTensor:
    """Write PAD."""
    x = w.as_shaped()
    pads = [pair for axis in x.order for pair in module.padding[axis]]
    wide = tuple(w.shape[axis] for axis in x.order)
    index = w.op(Op.PAD, [x.index, w.dims((0, 0, *pads), "pads"), w.zero(x.zero_point)], wide)
    return w.moved(x, index, w.shape, x.order)


def write_concat(w: TosaWriter, module: Concat) -> HeldTensor:
    """Write CONCAT along the axis on which the file has the program's."""
    order = w.x.order if all(x.image == x.shape for x in w.inputs) else tuple(range(len(w.shape)))
    indices = [w.arranged(x, x.shape, order) for x in w.inputs]
    dims = tuple(w.shape[each] for each in order)
    index = w.op(Op.CONCAT, indices, dims, axis=1 + order.index(module.axis - 1))
    return w.held(index, w.shape, order)
