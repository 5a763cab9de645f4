"""Writers of layers that stay in floats, where `output="float"` or overrides leave them so."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.sum import Sum
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


@float_layers.writes(Sum)
def write_float_sum(w: NodeWriter, op: Sum) -> StoredTensor:
    """Write Add, and Mul of what has a factor."""
    terms = [
        x.value if factor == 1 else w.op("Mul", x.value, _number(w, factor, "factor"), shape=x.shape, dtype=_FLOAT)
        for x, factor in zip(w.inputs, op.factors, strict=True)
    ]
    return _left_float(w, w.op("Add", *terms, dtype=_FLOAT))


@float_layers.writes(Identity)
def write_float_identity(w: NodeWriter, op: Identity) -> StoredTensor:
    """Write what follows it: a norm, an activation."""
    return _left_float(w, w.x.value)


def _left_float(w: NodeWriter, value: ir.Value) -> StoredTensor:
    """Write the norm and the activation behind a float operator, and say that it is not proven."""
    norm, clip_range = w.module.norm, w.module.clip_range
    if norm is not None:
        channels = (-1, *[1] * (len(w.shape) - 1))
        for op_type, each in (("Mul", norm.weight), ("Add", norm.bias)):
            value = w.op(op_type, value, w.constant(numpy(each).reshape(channels), op_type.lower()), dtype=_FLOAT)
    if clip_range.minimum > -math.inf:
        value = w.op("Max", value, _number(w, clip_range.minimum, "minimum"), dtype=_FLOAT)
    if clip_range.maximum < math.inf:
        value = w.op("Min", value, _number(w, clip_range.maximum, "maximum"), dtype=_FLOAT)
    w.note(operator="float", arithmetic="float32", reason="not proven: float, kept so by output='float' or overrides")
    return StoredTensor(value, 0, w.shape, is_real=True)


def _number(w: NodeWriter, number: float, name: str) -> ir.Value:
    return w.constant(np.float32(number), name)
