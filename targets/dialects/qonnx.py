"""The QONNX dialect: integers in float tensors, Quant nodes that say how wide they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_to, location, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.interpolation import Interpolation
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_modules import IntegerHead, IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.dialects.float_staircase import EXACT, FloatStaircase, float_staircase, thresholds_of
from ana_fx.targets.onnx.dialect import Dialect, Writer
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor
from ana_fx.targets.onnx.writer_table import WriterTable
from ana_fx.targets.writers.convolution_attributes import convolution_attributes, window_attributes
from ana_fx.targets.writers.write_accumulators import accumulators as integer_accumulators
from ana_fx.targets.writers.write_borders import borders
from ana_fx.targets.writers.write_constant import constants
from ana_fx.targets.writers.write_max_pool import write_max_pool
from ana_fx.targets.writers.write_movement import movements
from ana_fx.targets.writers.write_table import functions

__all__ = ["MULTI_THRESHOLD", "QONNX"]

_DOMAIN = "qonnx.custom_op.general"
_FLOAT = ir.DataType.FLOAT
_CHANNELS_FIRST = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_CHANNELS_LAST = {2: "NC", 3: "NWC", 4: "NHWC", 5: "NDHWC"}

accumulators: WriterTable[ir.Value] = WriterTable(__name__)
"""Writers of accumulators as float32, which holds them exactly."""


@accumulators.writes(Sum)
def write_sum(w: NodeWriter, op: Sum) -> ir.Value:
    """c₀·n₀ + c₁·n₁, without the products by 1."""
    assert w.weight is not None
    terms = []
    for x, coefficient in zip(w.inputs, w.weight.tolist(), strict=True):
        term = x.value
        if coefficient != 1:
            term = w.op("Mul", x.value, w.number(coefficient, "coefficient"), shape=x.shape)
        terms.append(term)
    return w.op("Add", *terms)


@accumulators.writes(Product)
def write_product(w: NodeWriter, op: Product) -> ir.Value:
    """n₀ · n₁."""
    return w.op("Mul", *(x.value for x in w.inputs))


@accumulators.writes(MatMul)
def write_matrix_product(w: NodeWriter, op: MatMul) -> ir.Value:
    """n₀ @ n₁."""
    return w.op("MatMul", *(x.value for x in w.inputs))


@accumulators.writes(Identity)
def write_identity(w: NodeWriter, op: Identity) -> ir.Value:
    """The levels themselves."""
    w.note(operator="Identity")
    return w.x.value


@accumulators.writes(Reduce)
def write_reduction(w: NodeWriter, op: Reduce) -> ir.Value:
    """The sum over axes."""
    axes = w.axes(*(axis % (len(w.x.shape) + 1) for axis in op.axes))
    return w.op("ReduceSum", w.x.value, axes, keepdims=int(op.keepdim))


@accumulators.writes(Normalization, Interpolation)
def write_in_integers(w: NodeWriter, op: Operator) -> ir.Value:
    """What standard integer operators compute, as floats."""
    return w.cast(integer_accumulators[type(op)](w.typed(ir.DataType.INT32), op), w.dtype)


@accumulators.writes(Average)
def write_average(w: NodeWriter, op: Average) -> ir.Value:
    """The sum over each window."""
    if op.window((1, *w.x.shape)) is None:
        return write_in_integers(w, op)
    channels = w.x.shape[0]
    weight = torch.ones((channels, 1, *op.kernel), dtype=torch.int8)
    return _convolve(w, weight, window_attributes(op, channels))


@accumulators.writes(Convolution)
def write_convolution(w: NodeWriter, op: Convolution) -> ir.Value:
    """Conv."""
    assert w.weight is not None
    return _convolve(w, w.weight, convolution_attributes(op))


@accumulators.writes(Linear)
def write_linear(w: NodeWriter, op: Linear) -> ir.Value:
    """MatMul."""
    assert w.weight is not None
    array = numpy(w.weight).astype(np.float32).T.copy()
    return w.op("MatMul", w.x.value, _quantized_weight(w, array, w.weight))


def _convolve(w: NodeWriter, weight: Tensor, attributes: dict[str, Any]) -> ir.Value:
    stored = _quantized_weight(w, numpy(weight).astype(np.float32), weight)
    return w.op("Conv", w.x.value, stored, **attributes, kernel_shape=list(weight.shape[2:]))


def _quantized_weight(w: NodeWriter, array: np.ndarray[Any, Any], weight: Tensor) -> ir.Value:
    """The weight behind a Quant or a BipolarQuant."""
    stored = w.number(array, "weight")
    if bool((weight.abs() == 1).all()):
        return w.constant_op("BipolarQuant", stored, w.number(1, "weight_scale"), shape=array.shape, domain=_DOMAIN)
    low, high = int(weight.min()), int(weight.max())
    bits = max(2, max(high, -low - 1).bit_length() + 1)
    integer_type = IntegerType(bits, signed=True, narrow=low > -(2 ** (bits - 1)))
    settings, attributes = _quant_settings(w, integer_type, "weight")
    return w.constant_op("Quant", stored, *settings, shape=array.shape, domain=_DOMAIN, **attributes)


def write_quantize(w: NodeWriter, module: Quantize) -> StoredTensor:
    """A Div by the scale and a Quant with scale 1."""
    w = w.typed(_FLOAT)
    levels = w.op("Div", w.x.value, w.number(numpy(module.scale), "scale"))
    integer_type = module.integer_type
    return w.stored(_quant(w, levels, integer_type), integer_type.qmin, integer_type.qmax)


def write_dequantize(w: NodeWriter, module: Dequantize) -> StoredTensor:
    """A Mul by the scale."""
    w = w.typed(_FLOAT)
    value = w.op("Mul", w.x.value, w.number(numpy(module.scale), "scale"))
    return StoredTensor(value, 0, w.shape, is_real=True)


def write_head(w: NodeWriter, op: Operator) -> StoredTensor:
    """The accumulator, times the head-room, plus the bias."""
    w, head = w.typed(_FLOAT), w.module
    accumulator = accumulators[type(op)](w, op)
    producer = accumulator.producer()
    assert producer is not None
    w.note(operator=producer.op_type, arithmetic="float32")
    value = _apply(w, "Mul", accumulator, torch.tensor([head.factor]))
    return StoredTensor(_apply(w, "Add", value, head.bias), 0, w.shape)


def write_function(w: NodeWriter, module: IntegerTable | IntegerSoftmax) -> StoredTensor:
    """A function of levels in integer operators, and a Quant that says the type."""
    found = functions[type(module)](w, module)
    return replace(found, value=_quant(w.typed(_FLOAT), found.value, module.integer_type))


def _in_floats(write_staircase: Callable[[NodeWriter, ir.Value], ir.Value]) -> Callable[[type], Writer]:
    """The writer of layer maps with that staircase, for each class of operators."""

    def writer(kind: type) -> Writer:
        def write(w: NodeWriter, op: object) -> StoredTensor:
            w = _reading_each_once(w.typed(_FLOAT))
            accumulator = accumulators[kind](w, op)
            producer = accumulator.producer()
            operator = w.notes.get("operator") or (producer.op_type if producer else "")
            value = write_staircase(w, accumulator)
            rounding = value.producer()
            assert rounding is not None
            w.note(operator=f"{operator}, {rounding.op_type}", arithmetic="float32")
            return w.stored(value)

        return write

    return writer


def _reading_each_once(w: NodeWriter) -> NodeWriter:
    """The same writer with a copy of what it reads twice: qonnx cannot rename what a node reads twice."""
    if len(w.inputs) < 2 or w.inputs[0].value is not w.inputs[1].value:
        return w
    return replace(w, inputs=(w.x, replace(w.x, value=w.op("Identity", w.x.value, shape=w.x.shape))))


def _round_or_multi_threshold(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """A chain of float32 operators where one is proven equal, else a MultiThreshold."""
    staircase = float_staircase(w.module)
    return _multi_threshold(w, accumulator) if staircase is None else _round(w, staircase, accumulator)


def _round(w: NodeWriter, staircase: FloatStaircase, value: ir.Value) -> ir.Value:
    """Mul, Add, Mul and Quant, without the steps that do nothing."""
    module = w.module
    value = _apply(w, "Mul", value, staircase.before * module.sign)
    value = _apply(w, "Add", value, staircase.offset)
    value = _apply(w, "Mul", value, staircase.after)
    integer_type: IntegerType = module.integer_type
    if (module.lo, module.hi) != (integer_type.qmin, integer_type.qmax):
        value = w.op("Clip", value, *(w.number(bound, "bound") for bound in (module.lo, module.hi)))
    return _quant(w, value, integer_type, rounding="FLOOR" if staircase.is_floor else "ROUND")


def _multi_threshold(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """The number of thresholds that an accumulator reaches, plus the lowest level."""
    module, rank = w.module, len(w.shape) + 1
    value = _apply(w, "Mul", accumulator, module.sign)
    thresholds = numpy(thresholds_of(module))
    if (thresholds == thresholds[:1]).all():
        thresholds = thresholds[:1]
    layouts = _CHANNELS_FIRST if module.operator.channel_axis(rank) == 1 else _CHANNELS_LAST
    attributes: dict[str, Any] = {
        "out_dtype": f"{'INT' if module.integer_type.signed else 'UINT'}{module.integer_type.bits}",
        "out_scale": 1.0,
        "out_bias": float(module.lo),
        "data_layout": layouts[rank],
    }
    return w.op("MultiThreshold", value, w.number(thresholds, "thresholds"), domain=_DOMAIN, **attributes)


def _apply(w: NodeWriter, op_type: str, value: ir.Value, channels: Tensor) -> ir.Value:
    """Apply an operator with a number for each channel, unless that changes nothing."""
    if bool((channels == (1 if op_type == "Mul" else 0)).all()):
        return value
    if bool((channels == channels[0]).all()):
        channels = channels[:1]
    axis = w.module.operator.channel_axis(len(w.shape) + 1)
    array = numpy(channels).reshape([-1] + [1] * (len(w.shape) - axis))
    return w.op(op_type, value, w.number(array, op_type.lower()))


def _quant(w: NodeWriter, value: ir.Value, integer_type: IntegerType, *, rounding: str = "ROUND") -> ir.Value:
    """A Quant with scale 1, and zero point 0 if the type has no other."""
    settings, attributes = _quant_settings(w, integer_type, "output", rounding)
    return w.op("Quant", value, *settings, domain=_DOMAIN, **attributes)


def _quant_settings(
    w: NodeWriter, integer_type: IntegerType, name: str, rounding: str = "ROUND"
) -> tuple[list[ir.Value], dict[str, Any]]:
    """The inputs of a Quant behind the first, and its attributes."""
    zero_point = integer_type.zero_point
    settings = {"scale": 1, "zero_point": zero_point or 0, "bits": integer_type.bits}
    is_signed = integer_type.signed and zero_point is None
    attributes = {"signed": int(is_signed), "narrow": int(integer_type.narrow), "rounding_mode": rounding}
    return [w.number(number, f"{name}_{key}") for key, number in settings.items()], attributes


def _take(w: NodeWriter, x: ir.Value) -> ir.Value:
    """The levels as floats, and a Quant that changes nothing but says the type."""
    w = w.typed(_FLOAT)
    integer_type: IntegerType = w.module.integer_type
    x = w.cast(x, _FLOAT)
    if integer_type.zero_point:
        x = w.op("Sub", x, w.number(integer_type.zero_point, "zero_point"))
    return _quant(w, x, integer_type)


def _misfits(program: GraphModule) -> list[str]:
    """Heads whose logits float32 does not hold; accumulators are in the target's description."""
    heads: list[tuple[Any, Any]] = [(node, module_of(node)) for node in calls_to(program, IntegerHead)]
    reaches = [(node, head.bound * head.factor + int(head.bias.abs().max())) for node, head in heads]
    return [
        f"{location(node)}: its logits can reach {largest}, needed less than {EXACT} (float32)"
        for node, largest in reaches
        if largest >= EXACT
    ]


def _dialect(write_staircase: Callable[[NodeWriter, ir.Value], ir.Value]) -> Dialect:
    writer = _in_floats(write_staircase)
    return Dialect(
        operators={kind: writer(kind) for kind in accumulators},
        heads=dict.fromkeys((Convolution, Linear), write_head),
        float_layers={},
        modules={
            **borders,
            **constants,
            **movements,
            **dict.fromkeys(functions, write_function),
            Quantize: write_quantize,
            Dequantize: write_dequantize,
            IntegerMaxPool: partial(write_max_pool, pads_itself=True, writes_zero_pads=True),  # read to turn channels
        },
        container=lambda integer_type: Container(_FLOAT, 0),
        border=lambda natural: _FLOAT,
        take=_take,
        misfits=_misfits,
    )


QONNX = _dialect(_round_or_multi_threshold)
"""Conv and MatMul on integers in float32, which holds them exactly, then Mul, Add and Quant.

All scales are 1, so that no product of scales rounds; those of the borders stand in the metadata. Where no chain of
float32 operators is proven equal to a staircase, it is a MultiThreshold.
"""

MULTI_THRESHOLD = _dialect(_multi_threshold)
"""The same with a MultiThreshold for every staircase."""
