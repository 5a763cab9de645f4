"""Writers of what does not depend on the input."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ana_fx.program.integer_modules import IntegerConstant, Repeat
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable

__all__ = ["constants"]

_INT64 = ir.DataType.INT64

constants: WriterTable[StoredTensor] = WriterTable(__name__)


@constants.writes(IntegerConstant)
def write_constant(w: NodeWriter, module: IntegerConstant) -> StoredTensor:
    """Write an initialiser, without a batch axis."""
    dtype, zero_point = w.container
    levels = numpy(module.levels).astype(np.int64)
    value = w.builder.constant((levels + zero_point).astype(dtype.numpy()), w.path)
    return StoredTensor(value, zero_point, levels.shape, module.hi + zero_point, module.lo + zero_point, levels)


@constants.writes(Repeat)
def write_repeat(w: NodeWriter, module: Repeat) -> StoredTensor:
    """Write a constant for each sample of another tensor."""
    constant, samples = w.inputs
    count = w.constant_op("Shape", samples.value, shape=(1,), dtype=_INT64, start=0, end=1)
    sizes = w.integers(constant.shape, "sizes")
    shape = w.constant_op("Concat", count, sizes, shape=(len(constant.shape) + 1,), dtype=_INT64, axis=0)
    value = w.op("Expand", constant.value, shape, shape=constant.shape, dtype=constant.dtype)
    return StoredTensor(value, constant.zero_point, constant.shape, constant.largest, constant.smallest)
