"""What the dialects of DORY and Deeploy share: floats that hold integers, a batch of one, few operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from ana_fx.operators.base_operator import Operator
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from ana_fx.targets.microcontrollers.plain_convolution import PlainConvolution, plain_convolution
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor

__all__ = [
    "FLOAT_TYPED",
    "exact_floats",
    "head_writer",
    "line_of",
    "plain_of",
    "with_batch_of_one",
    "write_conv",
    "write_gemm",
]

_FLOAT = ir.DataType.FLOAT

FLOAT_TYPED: Mapping[str, Any] = {
    "codebooks": {},
    "float_layers": {},
    "container": lambda integer_type: Container(_FLOAT, 0),
    "border": lambda natural: _FLOAT,
    "opset": 10,  # the last one with the attributes that the parsers read
    "ir_version": 5,
}
"""Settings of a dialect whose floats hold integers."""


def with_batch_of_one(model: ir.Model) -> ir.Model:
    """Fix the batch of a model at one."""
    graph = model.graph
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.shape is not None and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *value.shape.dims[1:]])
    return model


def line_of(w: NodeWriter) -> CommonShift:
    """Return the requantizer of a layer map; a program with a map that has none was refused."""
    line = common_shift(w.module)
    assert line is not None
    return line


def plain_of(w: NodeWriter) -> PlainConvolution:
    """Return the plain convolution that a layer map is; a program with a map that is none was refused."""
    conv = plain_convolution(w.module.operator, w.module.weight, w.x.shape)
    assert conv is not None
    return conv


def write_gemm(w: NodeWriter, weight: Tensor, bias: Tensor, **more: Any) -> ir.Value:
    """Write Gemm, whose weight is [in, out], with more attributes."""
    inputs = [
        w.x.value,
        w.constant(exact_floats(numpy(weight.T)), "weight"),
        w.constant(exact_floats(numpy(bias)), "bias"),
    ]
    attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **more}
    return w.op("Gemm", *inputs, dtype=_FLOAT, **attributes)


def write_conv(w: NodeWriter, conv: PlainConvolution, x: StoredTensor, **more: Any) -> ir.Value:
    """Write Conv of an image, with more attributes."""
    spatial = tuple(
        (size + sum(pads) - kernel) // stride + 1
        for size, pads, kernel, stride in zip(
            x.shape[1:], conv.padding, conv.weight.shape[2:], conv.stride, strict=True
        )
    )
    weight = w.constant(exact_floats(numpy(conv.weight)), "weight")
    shape = (len(conv.weight), *spatial)
    return w.op("Conv", x.value, weight, shape=shape, dtype=_FLOAT, **conv.attributes(), **more)


def head_writer(attributes_of: Callable[[Tensor], dict[str, Any]]) -> Callable[[NodeWriter, Operator], StoredTensor]:
    """Make the writer of a linear last layer: a Gemm whose outputs have 32 bits.

    Args:
        attributes_of: From its weight to the attributes that the Gemm has beyond the usual ones.
    """

    def write(w: NodeWriter, op: Operator) -> StoredTensor:
        head = w.module
        weight = head.weight.to(head.bias.dtype) * head.factor
        value = write_gemm(w, weight, head.bias.expand(len(weight)), **attributes_of(weight))
        w.note(operator="Gemm", arithmetic="int32")
        return StoredTensor(value, 0, w.shape)

    return write


def exact_floats(integers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the numbers as float32 if it holds them, else as float64."""
    wide = integers.astype(np.float64)
    narrow = wide.astype(np.float32)
    return narrow if bool((narrow == wide).all()) else wide
