"""Writers of data movements: no number changes, so every operator works on levels of any type, and on reals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ana_fx.program.data_movement import Concat, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable

__all__ = ["movements"]

# The leading axis of a result has another name than "N" where a movement changes its length: onnxruntime takes two axes
# of one name for equal when it shares memory.
movements: WriterTable[StoredTensor] = WriterTable(__name__)


@movements.writes(Reshape)
def write_reshape(w: NodeWriter, module: Reshape) -> StoredTensor:
    """Write Reshape."""
    return _moved(w, w.reshape(w.x.value, w.shape))


@movements.writes(Permute)
def write_permute(w: NodeWriter, module: Permute) -> StoredTensor:
    """Write Transpose."""
    return _moved(w, w.op("Transpose", w.x.value, dtype=w.x.dtype, perm=module.order))


@movements.writes(Slice)
def write_slice(w: NodeWriter, module: Slice) -> StoredTensor:
    """Write Slice of the axes that lose something, or of the first where none does."""
    whole = [(0, size, 1) for size in w.x.shape]
    cut = [axis for axis, each in enumerate(module.slices) if each != whole[axis]] or [0]
    starts, stops, steps = zip(*(module.slices[axis] for axis in cut), strict=True)
    bounds = {"starts": starts, "ends": stops, "axes": [axis + 1 for axis in cut], "steps": steps}
    inputs = [w.integers(each, name) for name, each in bounds.items()]
    return _moved(w, w.op("Slice", w.x.value, *inputs, dtype=w.x.dtype))


@movements.writes(Take)
def write_take(w: NodeWriter, module: Take) -> StoredTensor:
    """Write Gather along one axis."""
    index = w.constant(numpy(module.index), "index")
    return _moved(w, w.op("Gather", w.x.value, index, dtype=w.x.dtype, axis=module.axis))


@movements.writes(Pad)
def write_pad(w: NodeWriter, module: Pad) -> StoredTensor:
    """Write Pad, with what stands for zero."""
    return _moved(w, _padded(w, w.x.value, module.padding, w.shape))


@movements.writes(Concat)
def write_concat(w: NodeWriter, module: Concat) -> StoredTensor:
    """Write Concat."""
    return _moved(w, w.op("Concat", *(x.value for x in w.inputs), dtype=w.x.dtype, axis=module.axis))


@movements.writes(Rearrange)
def write_rearrange(w: NodeWriter, module: Rearrange) -> StoredTensor:
    """Write Gather from the flattened inputs, with a zero in front of them if the index asks for one."""
    index, size, dtype = module.index, sum(module.sizes), w.x.dtype
    flat = [w.reshape(x.value, (each,)) for x, each in zip(w.inputs, module.sizes, strict=True)]
    value = flat[0] if len(flat) == 1 else w.op("Concat", *flat, shape=(size,), dtype=dtype, axis=1)
    if bool((index == 0).any()):
        value = _padded(w, value, [(1, 0)], (size + 1,))
    else:
        index = index - 1
    gathered = w.op("Gather", value, w.constant(numpy(index), "index"), shape=(len(index),), dtype=dtype, axis=1)
    return _moved(w, w.reshape(gathered, w.shape))


def _padded(w: NodeWriter, value: ir.Value, padding: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> ir.Value:
    before, after = zip((0, 0), *padding, strict=True)
    pads = w.integers([*before, *after], "pads")
    zero = w.constant(np.asarray(w.x.zero_point, w.x.dtype.numpy()), "zero")
    return w.op("Pad", value, pads, zero, shape=shape, dtype=w.x.dtype)


def _moved(w: NodeWriter, value: ir.Value) -> StoredTensor:
    """Return what was written, whose numbers are those of the inputs."""
    largest, smallest = max(x.largest for x in w.inputs), min(x.smallest for x in w.inputs)
    return replace(w.x, value=value, shape=w.shape, largest=largest, smallest=smallest, constant=None)
