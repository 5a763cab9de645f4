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
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.dialects.float_staircase import EXACT, float_staircase
from ana_fx.targets.dialects.qonnx_nodes import (
    apply,
    codebook_levels,
    multi_threshold,
    quant,
    quantized_weight,
    round_to_levels,
)
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

_FLOAT = ir.DataType.FLOAT

accumulators: WriterTable[ir.Value] = WriterTable(__name__)
"""Writers of accumulators as float32, which holds them exactly."""


@accumulators.writes(Sum)
def write_sum(w: NodeWriter, op: Sum) -> ir.Value:
    """Write c₀·n₀ + c₁·n₁."""
    return w.op("Add", *_terms(w))


@accumulators.writes(Maximum)
def write_maximum(w: NodeWriter, op: Maximum) -> ir.Value:
    """Write max(c₀·n₀, c₁·n₁)."""
    return w.op("Max", *_terms(w))


@accumulators.writes(Minimum)
def write_minimum(w: NodeWriter, op: Minimum) -> ir.Value:
    """Write min(c₀·n₀, c₁·n₁)."""
    return w.op("Min", *_terms(w))


def _terms(w: NodeWriter) -> list[ir.Value]:
    """Write each tensor times its coefficient, without the products by 1."""
    assert w.weight is not None
    terms = []
    for x, coefficient in zip(w.inputs, w.weight.tolist(), strict=True):
        term = x.value
        if coefficient != 1:
            term = w.op("Mul", x.value, w.number(coefficient, "coefficient"), shape=x.shape)
        terms.append(term)
    return terms


@accumulators.writes(Product)
def write_product(w: NodeWriter, op: Product) -> ir.Value:
    """Write n₀ · n₁."""
    return w.op("Mul", *(x.value for x in w.inputs))


@accumulators.writes(MatMul)
def write_matrix_product(w: NodeWriter, op: MatMul) -> ir.Value:
    """Write n₀ @ n₁."""
    return w.op("MatMul", *(x.value for x in w.inputs))


@accumulators.writes(Identity)
def write_identity(w: NodeWriter, op: Identity) -> ir.Value:
    """Write nothing: the levels are the accumulators."""
    w.note(operator="Identity")
    return w.x.value


@accumulators.writes(Reduce)
def write_reduction(w: NodeWriter, op: Reduce) -> ir.Value:
    """Write the sum over axes."""
    axes = w.axes(*(axis % (len(w.x.shape) + 1) for axis in op.axes))
    return w.op("ReduceSum", w.x.value, axes, keepdims=int(op.keepdim))


@accumulators.writes(Normalization, Interpolation)
def write_in_integers(w: NodeWriter, op: Operator) -> ir.Value:
    """Write what standard integer operators compute, and cast it to floats."""
    return w.cast(integer_accumulators[type(op)](w.typed(ir.DataType.INT32), op), w.dtype)


@accumulators.writes(Average)
def write_average(w: NodeWriter, op: Average) -> ir.Value:
    """Write the sum over each window."""
    if op.window((1, *w.x.shape)) is None:
        return write_in_integers(w, op)
    channels = w.x.shape[0]
    weight = torch.ones((channels, 1, *op.kernel), dtype=torch.int8)
    return _convolve(w, weight, window_attributes(op, channels))


@accumulators.writes(Convolution)
def write_convolution(w: NodeWriter, op: Convolution) -> ir.Value:
    """Write Conv."""
    assert w.weight is not None
    return _convolve(w, w.weight, convolution_attributes(op))


@accumulators.writes(Linear)
def write_linear(w: NodeWriter, op: Linear) -> ir.Value:
    """Write MatMul."""
    assert w.weight is not None
    array = numpy(w.weight).astype(np.float32).T.copy()
    return w.op("MatMul", w.x.value, quantized_weight(w, array, w.weight))


def _convolve(w: NodeWriter, weight: Tensor, attributes: dict[str, Any]) -> ir.Value:
    stored = quantized_weight(w, numpy(weight).astype(np.float32), weight)
    return w.op("Conv", w.x.value, stored, **attributes, kernel_shape=list(weight.shape[2:]))


def write_quantize(w: NodeWriter, module: Quantize) -> StoredTensor:
    """Write a Div by the scale and a Quant with scale 1."""
    w = w.typed(_FLOAT)
    levels = w.op("Div", w.x.value, w.number(numpy(module.scale), "scale"))
    integer_type = module.integer_type
    return w.stored(quant(w, levels, integer_type), integer_type.qmin, integer_type.qmax)


def write_dequantize(w: NodeWriter, module: Dequantize) -> StoredTensor:
    """Write a Mul by the scale."""
    w = w.typed(_FLOAT)
    value = w.op("Mul", w.x.value, w.number(numpy(module.scale), "scale"))
    return StoredTensor(value, 0, w.shape, is_real=True)


def write_head(w: NodeWriter, op: Operator) -> StoredTensor:
    """Write the accumulator, times the head-room, plus the bias."""
    w, head = w.typed(_FLOAT), w.module
    accumulator = accumulators[type(op)](w, op)
    producer = accumulator.producer()
    assert producer is not None
    w.note(operator=producer.op_type, arithmetic="float32")
    value = apply(w, "Mul", accumulator, torch.tensor([head.factor]))
    return StoredTensor(apply(w, "Add", value, head.bias), 0, w.shape)


def write_function(w: NodeWriter, module: IntegerTable | IntegerSoftmax) -> StoredTensor:
    """Write a function of levels in integer operators, and a Quant that says the type."""
    found = functions[type(module)](w, module)
    return replace(found, value=quant(w.typed(_FLOAT), found.value, module.integer_type))


def _in_floats(write_staircase: Callable[[NodeWriter, ir.Value], ir.Value]) -> Callable[[type], Writer]:
    """Make the writer of layer maps with that staircase, for each class of operators."""

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
    """Return the writer with a copy of what it would read twice: qonnx cannot rename that."""
    if len(w.inputs) < 2 or w.inputs[0].value is not w.inputs[1].value:
        return w
    return replace(w, inputs=(w.x, replace(w.x, value=w.op("Identity", w.x.value, shape=w.x.shape))))


def _round_or_multi_threshold(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """Write a chain of float32 operators where one is proven equal, else a MultiThreshold."""
    staircase = float_staircase(w.module)
    return multi_threshold(w, accumulator) if staircase is None else round_to_levels(w, staircase, accumulator)


def _take(w: NodeWriter, x: ir.Value) -> ir.Value:
    """Write the levels as floats, and a Quant that changes nothing but says the type."""
    w = w.typed(_FLOAT)
    integer_type: IntegerType = w.module.integer_type
    x = w.cast(x, _FLOAT)
    if integer_type.zero_point:
        x = w.op("Sub", x, w.number(integer_type.zero_point, "zero_point"))
    return quant(w, x, integer_type)


def _misfits(program: GraphModule) -> list[str]:
    """List the heads whose logits float32 does not hold; accumulators are in the target's description."""
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
        codebooks={kind: _in_floats(codebook_levels)(kind) for kind in accumulators},
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

MULTI_THRESHOLD = _dialect(multi_threshold)
"""The same with a MultiThreshold for every staircase."""
