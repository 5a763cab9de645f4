"""Writers of a last layer that stays in floats, where `output="float"` leaves it so."""

from __future__ import annotations

import onnx_ir as ir

from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.writers.convolution_attributes import convolution_attributes

__all__ = ["float_layers"]

_FLOAT = ir.DataType.FLOAT

float_layers: WriterTable[StoredTensor] = WriterTable(__name__)


@float_layers.writes(Linear)
def write_float_linear(w: NodeWriter, op: Linear) -> StoredTensor:
    """Write MatMul, and Add if there is a bias."""
    assert w.weight is not None
    y = w.op("MatMul", w.x.value, w.constant(numpy(w.weight).T.copy(), "weight"), dtype=_FLOAT)
    if w.module.bias is not None:
        y = w.op("Add", y, w.constant(numpy(w.module.bias), "bias"), dtype=_FLOAT)
    return _left_float(w, y)


@float_layers.writes(Convolution)
def write_float_convolution(w: NodeWriter, op: Convolution) -> StoredTensor:
    """Write Conv."""
    assert w.weight is not None
    inputs = [w.x.value, w.constant(numpy(w.weight), "weight")]
    if w.module.bias is not None:
        inputs.append(w.constant(numpy(w.module.bias), "bias"))
    return _left_float(w, w.op("Conv", *inputs, dtype=_FLOAT, **convolution_attributes(op)))


def _left_float(w: NodeWriter, value: ir.Value) -> StoredTensor:
    w.note(operator="float", arithmetic="float32", reason="left float by output='float'")
    return StoredTensor(value, 0, w.shape, is_real=True)
