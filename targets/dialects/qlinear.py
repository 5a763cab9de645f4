"""The fast dialect on x86 and Arm: QLinear operators, whose formula the staircases already are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.fx import GraphModule

from ana_fx.graph import calls_to, module_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.product import Product
from ana_fx.operators.sum import Sum
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.dialects.clip_behind_pool import clip_behind_pools
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.dialects.product_form import (
    ProductForm,
    average_form,
    convolution_form,
    identity_form,
    linear_form,
    read_image,
)
from ana_fx.targets.dialects.qlinear_proofs import (
    add_scales,
    has_qlinear_staircase,
    qlinear_staircase,
    unproven_add,
    unproven_mul,
    unproven_product,
)
from ana_fx.targets.onnx.dialect import Writer
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor
from ana_fx.targets.writers.weight_bytes import WeightBytes, write_bytes
from ana_fx.targets.writers.write_max_pool import write_max_pool

__all__ = ["ONNXRUNTIME", "in_form", "in_integers", "leave", "where_proven"]

_UINT8 = ir.DataType.UINT8
_BYTE = 255
_SIGNED_ZERO = 128
_CONTRIB = "com.microsoft"

Doubt = Callable[[NodeWriter], str]
Form = Callable[[NodeWriter, Any], ProductForm | None]


def in_integers(w: NodeWriter, op: object, reason: str = "no QLinear operator computes it") -> StoredTensor:
    """Write a layer map in integer arithmetic, and note why."""
    written = INTEGER.operators[type(op)](w, op)
    w.note(reason=reason)
    return written


def where_proven(doubt: Doubt, write: Writer) -> Writer:
    """The writer that is `write` where nothing is in doubt, else integer arithmetic."""

    def written(w: NodeWriter, op: object) -> StoredTensor:
        reason = doubt(w)
        return in_integers(w, op, reason) if reason else write(w, op)

    return written


def in_form(form_of: Form, write: Callable[[NodeWriter, ProductForm], StoredTensor]) -> Writer:
    """The writer of a layer map as a product with a weight; where it is none, in integer arithmetic."""

    def written(w: NodeWriter, op: object) -> StoredTensor:
        form = form_of(w, op) if has_qlinear_staircase(w.module) else None
        return in_integers(w, op) if form is None else write(w, form)

    return written


def write_convolution(w: NodeWriter, form: ProductForm) -> StoredTensor:
    """Write QLinearConv, and a Clip where its levels are fewer than a byte's."""
    stored = write_bytes(w, form.weight, adds_pairs=form.is_dense)
    x = read_image(w, form)
    factors, result, bias = _settings(w, stored)
    value = w.op("QLinearConv", x, *factors, *result, bias, shape=form.image_out, dtype=_UINT8, **form.attributes)
    w.note(operator="QLinearConv", arithmetic="float32")
    return leave(w, value, form.image_out)


def write_gemm(w: NodeWriter, form: ProductForm) -> StoredTensor:
    """Write QGemm over the rows."""
    stored = write_bytes(w, form.weight, adds_pairs=form.is_dense)
    x = read_image(w, form)
    factors, result, bias = _settings(w, stored, transposes=True)
    value = w.op("QGemm", x, *factors, bias, *result, shape=form.image_out, dtype=_UINT8, domain=_CONTRIB)
    w.note(operator="QGemm", arithmetic="float32")
    return leave(w, value, form.image_out)


def _settings(
    w: NodeWriter, weight: WeightBytes, *, transposes: bool = False
) -> tuple[list[ir.Value], list[ir.Value], ir.Value]:
    """Write what follows the input of a QLinear operator: settings of x and the weight, of the result, and the bias."""
    staircase, zero_point = qlinear_staircase(w.module), w.container.zero_point
    num_channels, dtype = len(weight.array), weight.array.dtype
    factors = [
        w.constant(numpy(staircase.x_scale), "x_scale"),
        w.constant(np.uint8(w.x.zero_point), "x_zero_point"),
        w.constant(weight.array.T.copy() if transposes else weight.array, "weight"),
        w.constant(numpy(staircase.weight_scale.expand(num_channels)), "weight_scale"),
        w.constant(np.full(num_channels, weight.zero_point, dtype), "weight_zero_point"),
    ]
    result = [w.constant(numpy(staircase.y_scale), "y_scale"), w.constant(np.uint8(zero_point), "y_zero_point")]
    return factors, result, w.constant(numpy(staircase.bias.to(torch.int32).expand(num_channels)), "bias")


def leave(w: NodeWriter, value: ir.Value, computed: tuple[int, ...]) -> StoredTensor:
    """Clip what was computed in one shape to the levels, unless the byte does it, and give it the node's shape."""
    zero_point = w.container.zero_point
    low, high = w.module.lo + zero_point, w.module.hi + zero_point
    if (low, high) != (0, _BYTE):
        bounds = [w.constant(np.uint8(bound), name) for name, bound in (("min", low), ("max", high))]
        value = w.op("Clip", value, *bounds, shape=computed, dtype=_UINT8)
    return w.stored(w.reshape(value, w.shape))


def write_product(w: NodeWriter, op: Product, operator: str, domain: str = "") -> StoredTensor:
    """Write QLinearMatMul or QLinearMul of two tensors of levels."""
    staircase = qlinear_staircase(w.module)
    scales = (staircase.x_scale, staircase.weight_scale.reshape(()), staircase.y_scale)
    points = (*(x.zero_point for x in w.inputs), w.container.zero_point)
    settings = [
        [w.constant(numpy(scale), "scale"), w.constant(np.uint8(point), "zero_point")]
        for scale, point in zip(scales, points, strict=True)
    ]
    first, second = (x.value for x in w.inputs)
    value = w.op(operator, first, *settings[0], second, *settings[1], *settings[2], dtype=_UINT8, domain=domain)
    w.note(operator=operator, arithmetic="float32")
    return leave(w, value, w.shape)


def write_add(w: NodeWriter, op: Sum) -> StoredTensor:
    """Write QLinearAdd, with scales in the ratio of the integer coefficients."""
    operands = []
    for x, scale, letter in zip(w.inputs, add_scales(w.module), "ab", strict=True):
        scale_constant = w.constant(np.float32(scale), f"{letter}_scale")
        operands += [x.value, scale_constant, w.constant(np.uint8(x.zero_point), f"{letter}_zero_point")]
    operands += [
        w.constant(numpy(qlinear_staircase(w.module).y_scale), "y_scale"),
        w.constant(np.uint8(w.container.zero_point), "y_zero_point"),
    ]
    value = w.op("QLinearAdd", *operands, dtype=_UINT8, domain=_CONTRIB)
    w.note(operator="QLinearAdd", arithmetic="float32")
    return leave(w, value, w.shape)


def _container(integer_type: IntegerType) -> Container:
    """Store all levels in uint8, with zero point 128 for signed types that have no other."""
    if integer_type.zero_point is not None:
        return Container(_UINT8, integer_type.zero_point)
    return Container(_UINT8, _SIGNED_ZERO if integer_type.signed else 0)


_FAST: Mapping[type, Writer] = {
    Average: in_form(average_form, write_convolution),
    Convolution: in_form(convolution_form, write_convolution),
    Identity: in_form(identity_form, write_convolution),
    Linear: in_form(linear_form, write_gemm),
    MatMul: where_proven(unproven_product, partial(write_product, operator="QLinearMatMul")),
    Product: where_proven(unproven_mul, partial(write_product, operator="QLinearMul", domain=_CONTRIB)),
    Sum: where_proven(unproven_add, write_add),
}


def _misfits(program: GraphModule) -> list[str]:
    """List the layer maps whose staircase no QLinear operator computes."""
    maps: dict[str, Any] = {str(node.target): module_of(node) for node in calls_to(program, IntegerMap)}
    return [
        f"layer map {path!r} has a staircase of integer shifts, which no QLinear operator computes"
        for path, module in maps.items()
        if type(module.operator) in _FAST and not has_qlinear_staircase(module)
    ]


ONNXRUNTIME = INTEGER.extended(
    {
        **dict.fromkeys(INTEGER.operators, in_integers),
        **_FAST,
        IntegerMaxPool: partial(write_max_pool, pads_itself=True),
    },
    container=_container,
    misfits=_misfits,
    finish=clip_behind_pools,
)
"""QLinearConv and QGemm for everything that multiplies weights, QLinearAdd where it is proven.

QLinear kernels take and give one type, so all levels are stored as uint8, signed ones with zero point 128. Heads are
MatMulInteger or ConvInteger. What no QLinear operator is proven for is written in integer arithmetic.
"""
