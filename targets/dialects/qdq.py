"""QuantizeLinear and DequantizeLinear around float operators, with weights as narrow as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.program_borders import Dequantize
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.dialects.float_staircase import EXACT
from ana_fx.targets.dialects.product_form import (
    ProductForm,
    average_form,
    convolution_form,
    identity_form,
    linear_form,
    mean_form,
    read_image,
)
from ana_fx.targets.dialects.qlinear import ONNXRUNTIME, in_form, leave, where_proven
from ana_fx.targets.dialects.qlinear_proofs import (
    add_scales,
    qlinear_staircase,
    unproven_add,
    unproven_mul,
    unproven_product,
)
from ana_fx.targets.onnx.dialect import Dialect, Writers
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.writers.convolution_attributes import convolution_attributes
from ana_fx.targets.writers.weight_bytes import WeightBytes, is_dense, write_bytes
from ana_fx.targets.writers.write_borders import borders, scalar, write_dequantize_linear

__all__ = ["QDQ", "QDQ_INT8"]

_FLOAT, _INT8, _INT32 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.INT32
_LEAST = {ir.DataType.INT2: -2, ir.DataType.INT4: -8, _INT8: -128}  # lowest level of each type
_ONE = np.ones((), np.float32)


@dataclass(frozen=True)
class _Weight:
    """How a weight is stored, and what it stands for.

    Args:
        stored: Its bytes, head-room included.
        factor: The head-room.
        scale: The real value of one of these bytes, or one for each output channel.
        types: In which of these types it may stand in the file, narrowest first.
    """

    stored: WeightBytes
    factor: int
    scale: np.ndarray[Any, Any]
    types: tuple[ir.DataType, ...]


def write_product(w: NodeWriter, form: ProductForm, types: tuple[ir.DataType, ...]) -> StoredTensor:
    """Write Conv, or Gemm over the rows, between DequantizeLinear and QuantizeLinear.

    A trained weight stands in the narrowest of these types that holds it.
    """
    staircase = qlinear_staircase(w.module)
    stored = write_bytes(w, form.weight, adds_pairs=form.is_dense)
    num_channels = len(stored.array)
    scale, bias = staircase.weight_scale, staircase.bias.to(torch.int32).expand(num_channels)
    weight = _Weight(stored, staircase.factor, numpy(scale), types if form.is_trained else (_INT8,))
    x = replace(w.x, value=read_image(w, form), shape=form.image_in)
    operands = [
        write_dequantize_linear(w, x, numpy(staircase.x_scale)),
        _write_weight(w, weight),
        _write_bias(w, numpy(bias), numpy((staircase.x_scale * scale).expand(num_channels))),
    ]
    value = _multiplied(w, operands, form.attributes, form.image_out)
    return _quantized(w, value, form.image_out)


def write_head(w: NodeWriter, op: Operator, types: tuple[ir.DataType, ...]) -> StoredTensor:
    """Write the logits as integers in floats, where these hold them; else in integer arithmetic."""
    head: IntegerHead = w.module
    if head.bound * head.factor + int(head.bias.abs().max()) >= EXACT:
        return ONNXRUNTIME.heads[type(op)](w, op)
    assert head.weight is not None
    integers = head.weight.to(torch.int32) * head.factor
    stored = write_bytes(w, integers, adds_pairs=is_dense(op, integers))
    operands = [
        write_dequantize_linear(w, w.x, _ONE),
        _write_weight(w, _Weight(stored, head.factor, _ONE, types)),
        _write_bias(w, numpy(head.bias.expand(len(integers))), _ONE),
    ]
    attributes = _HEAD_ATTRIBUTES[type(op)](op)
    if attributes:
        return StoredTensor(_multiplied(w, operands, attributes, w.shape), 0, w.shape)
    operands[0] = w.reshape(operands[0], w.x.shape[-1:])
    return StoredTensor(w.reshape(_multiplied(w, operands, {}, w.shape[-1:]), w.shape), 0, w.shape)


_HEAD_ATTRIBUTES: dict[type, Any] = {Convolution: convolution_attributes, Linear: lambda op: {}}


def write_pair(w: NodeWriter, op: Product, operator: str) -> StoredTensor:
    """Write MatMul or Mul of two tensors of levels."""
    staircase = qlinear_staircase(w.module)
    return _paired(w, operator, [numpy(staircase.x_scale), numpy(staircase.weight_scale.reshape(()))])


def write_add(w: NodeWriter, op: Sum) -> StoredTensor:
    """Write Add, with scales in the ratio of the integer coefficients."""
    return _paired(w, "Add", [np.asarray(scale, np.float32) for scale in add_scales(w.module)])


def write_dequantize(w: NodeWriter, module: Dequantize) -> StoredTensor:
    """Write DequantizeLinear, or a Mul of what is in floats already."""
    if w.x.dtype is not _FLOAT:
        return borders[Dequantize](w, module)
    value = w.op("Mul", w.x.value, w.constant(numpy(module.scale), "scale"), dtype=_FLOAT)
    return StoredTensor(value, 0, w.shape, is_real=True)


def _paired(w: NodeWriter, operator: str, scales: Sequence[np.ndarray[Any, Any]]) -> StoredTensor:
    operands = [write_dequantize_linear(w, x, scale) for x, scale in zip(w.inputs, scales, strict=True)]
    w.note(operator=operator, arithmetic="float32")
    return _quantized(w, w.op(operator, *operands, dtype=_FLOAT), w.shape)


def _multiplied(
    w: NodeWriter, operands: Sequence[ir.Value], attributes: dict[str, Any], shape: tuple[int, ...]
) -> ir.Value:
    """Write Conv if there are attributes, else Gemm, of data, weight and bias."""
    w.note(operator="Conv" if attributes else "Gemm", arithmetic="float32")
    if attributes:
        return w.op("Conv", *operands, shape=shape, dtype=_FLOAT, **attributes)
    return w.op("Gemm", *operands, shape=shape, dtype=_FLOAT, transB=1)


def _quantized(w: NodeWriter, value: ir.Value, computed: tuple[int, ...]) -> StoredTensor:
    """Write QuantizeLinear, and a Clip where the levels are fewer than a byte's."""
    dtype, zero_point = w.container
    y_scale = w.constant(numpy(qlinear_staircase(w.module).y_scale), "y_scale")
    zero = w.constant(scalar(zero_point, dtype), "y_zero_point")
    return leave(w, w.op("QuantizeLinear", value, y_scale, zero, shape=computed, dtype=dtype), computed)


def _write_weight(w: NodeWriter, weight: _Weight) -> ir.Value:
    """Write the float weight, from levels that a reader multiplies with the head-room when it loads them."""
    stored = weight.stored
    levels = (stored.array.astype(np.int32) - stored.zero_point) // weight.factor
    dtype = _narrowest(levels, weight.types)
    if dtype is _INT8:
        value = w.constant(stored.array, "weight")
    else:
        value = _widened(w, w.constant(levels.astype(dtype.numpy()), "weight"), weight.factor, stored)
    scale = weight.scale if weight.scale.size > 1 else weight.scale.reshape(())
    return _dequantized(w, value, "weight", scale, stored.zero_point)


def _narrowest(levels: np.ndarray[Any, Any], types: tuple[ir.DataType, ...]) -> ir.DataType:
    """Choose the narrowest of these types that has these levels."""
    low, high = int(levels.min()), int(levels.max())
    return next(dtype for dtype in types if _LEAST[dtype] <= low and high < -_LEAST[dtype])


def _widened(w: NodeWriter, value: ir.Value, factor: int, weight: WeightBytes) -> ir.Value:
    """Write a constant of few bits times its head-room, as the bytes of a weight; runtimes fold this when they load."""
    byte, shape = ir.DataType.from_numpy(weight.array.dtype), weight.array.shape
    steps = [("Mul", factor, 1, "headroom"), ("Add", weight.zero_point, 0, "zero")]
    steps = [step for step in steps if step[1] != step[2]]
    if steps:
        value = w.constant_op("Cast", value, shape=shape, dtype=_INT32, to=_INT32)
    for op_type, number, _, name in steps:
        value = w.constant_op(op_type, value, w.constant(np.int32(number), name), shape=shape, dtype=_INT32)
    return w.constant_op("Cast", value, shape=shape, dtype=byte, to=byte)


def _write_bias(w: NodeWriter, bias: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]) -> ir.Value:
    return _dequantized(w, w.constant(bias.astype(np.int32), "bias"), "bias", scale)


def _dequantized(
    w: NodeWriter, value: ir.Value, name: str, scale: np.ndarray[Any, Any], zero_point: int = 0
) -> ir.Value:
    """Write DequantizeLinear of a constant, each output channel with its scale; onnxruntime's Gemm needs the zero."""
    array = np.asarray(scale, np.float32)
    assert value.dtype is not None
    assert value.shape is not None
    settings = [w.constant(array, f"{name}_scale")]
    if value.dtype is not _INT32:
        settings.append(w.constant(np.full(array.shape, zero_point, value.dtype.numpy()), f"{name}_zero_point"))
    shape = tuple(int(size) for size in value.shape.dims)  # type: ignore[arg-type]  # none is symbolic
    attributes: dict[str, Any] = {"axis": 0} if array.ndim else {}
    return w.constant_op("DequantizeLinear", value, *settings, shape=shape, dtype=_FLOAT, **attributes)


def _spelt_out(w: NodeWriter, op: Identity) -> ProductForm:
    """The form of a rescale with all attributes of a convolution."""
    form = identity_form(w, op)
    rescale = Convolution((1, 1), ((0, 0), (0, 0)), (1, 1), groups=form.image_in[0])
    return replace(form, attributes=convolution_attributes(rescale))


def _operators(types: tuple[ir.DataType, ...]) -> Writers:
    write = partial(write_product, types=types)
    return {
        Average: in_form(average_form, write),
        Convolution: in_form(convolution_form, write),
        Identity: in_form(_spelt_out, write),
        Linear: in_form(linear_form, write),
        Reduce: in_form(mean_form, write),
        MatMul: where_proven(unproven_product, partial(write_pair, operator="MatMul")),
        Product: where_proven(unproven_mul, partial(write_pair, operator="Mul")),
        Sum: where_proven(unproven_add, write_add),
    }


def _dialect(types: tuple[ir.DataType, ...]) -> Dialect:
    """The dialect whose weights stand in the narrowest of these types that holds them."""
    heads = dict.fromkeys(ONNXRUNTIME.heads, partial(write_head, types=types))
    return ONNXRUNTIME.extended({**_operators(types), Dequantize: write_dequantize}, heads=heads)


QDQ = _dialect(tuple(_LEAST))
"""Float operators between DequantizeLinear and QuantizeLinear.

onnxruntime fuses these to the QLinear operators whose formula the staircases are, so it gives the same bits; a runtime
that computes in floats may round otherwise near a tie. Weights of up to four bits are stored as INT4 or INT2 and
widened to the INT8 that the fused operators multiply. Heads are exact in any float arithmetic: their scales are 1.
"""

QDQ_INT8 = _dialect((_INT8,))
"""The same with all weights as INT8, for readers that know no narrower type."""
