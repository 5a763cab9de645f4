"""Writing maps of two tensors: ADD and MUL where they are proven, else what computes the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.product import Product
from ana_fx.operators.sum import Sum
from ana_fx.targets.channels_last.aligned_pair import AlignedPair
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.kernel_product import KernelProduct, ones
from ana_fx.targets.tflite.adds import unproven_add
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.muls import mul_scale
from ana_fx.targets.tflite.schema import Activation, Code
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_clips import activation, clipped
from ana_fx.targets.tflite.write_lookups import as_int32, with_number, write_accumulator_lookup
from ana_fx.targets.tflite.write_products import write_product

__all__ = ["write_maximum", "write_minimum", "write_mul", "write_sum"]

Shape = tuple[int, ...]


def write_sum(w: TfliteWriter, op: Sum) -> HeldTensor:
    """Write ADD where each sum of two levels is proven to give its level, else a product with both tensors.

    Tensors that broadcast cannot be put into one; their sums are those of int32, and a table.
    """
    pair, reason = AlignedPair.of(w), unproven_add(w)
    if not reason:
        index = w.op(Code.ADD, pair.indices, pair.dims, fused_activation_function=activation(w))
        index = clipped(w, index, pair.dims)
        w.note(Code.ADD.name, "20-bit multipliers")
        return w.held(index, pair.image, pair.order)
    w.notes["reason"] = reason
    if pair.is_broadcast:
        index = _by_table(w, Code.ADD, pair, fused_activation_function=Activation.NONE)
    else:
        index = _add_as_product(w, pair)
    return w.held(index, pair.image, pair.order)


def write_mul(w: TfliteWriter, op: Product) -> HeldTensor:
    """Write MUL where each product of two levels is proven to give its level, else products of int32 and a table."""
    pair, (first, second) = AlignedPair.of(w), w.inputs
    scale = mul_scale(w.module, (first.scale, second.scale), w.target.requantizer)
    if scale is None:
        w.notes["reason"] = "kernels do not give the levels of all products"
        index = _by_table(w, Code.MUL, pair, fused_activation_function=Activation.NONE)
    else:
        indices = list(pair.indices)
        if scale != second.scale:
            own, scales = pair.dims_of[1], Scales(scale, second.zero_point)
            indices[1] = w.reshaped(indices[1], own, own, scales, is_renamed=True)
        index = w.op(Code.MUL, indices, pair.dims, fused_activation_function=activation(w))
        index = clipped(w, index, pair.dims)
        w.note(Code.MUL.name, w.target.requantizer.value)
    return w.held(index, pair.image, pair.order)


def write_maximum(w: TfliteWriter, op: Maximum) -> HeldTensor:
    """Write MAXIMUM of int32, and a table."""
    pair = AlignedPair.of(w)
    return w.held(_by_table(w, Code.MAXIMUM, pair), pair.image, pair.order)


def write_minimum(w: TfliteWriter, op: Minimum) -> HeldTensor:
    """Write MINIMUM of int32, and a table."""
    pair = AlignedPair.of(w)
    return w.held(_by_table(w, Code.MINIMUM, pair), pair.image, pair.order)


def _by_table(w: TfliteWriter, code: Code, pair: AlignedPair, **options: Any) -> int:
    """Write an operator on both tensors in int32, and a table from what it gives to levels."""
    terms = []
    for place, (index, dims, x) in enumerate(zip(pair.indices, pair.dims_of, w.inputs, strict=True)):
        factor = 1 if w.module.weight is None else int(w.module.weight[place])
        terms.append(with_number(w, as_int32(w, index, dims, -x.zero_point), dims, factor, Code.MUL))
    accumulator = w.int32(code, terms, pair.dims, **options)
    return write_accumulator_lookup(w, accumulator, pair.dims)


def _add_as_product(w: TfliteWriter, pair: AlignedPair) -> int:
    """Write a depthwise convolution whose image has the two tensors for its rows and whose kernel is two numbers high.

    The kernel takes both rows for tensors of one zero point; the difference of their zero points goes into the bias.
    """
    dims = pair.dims
    channels, size = (dims[-1], math.prod(dims[:-1])) if dims else (1, 1)
    row, module, (first, second) = (1, size, channels), w.module, w.inputs
    scales = Scales(np.float32(module.staircase.x_scale), first.zero_point)
    rows = [w.reshaped(index, dims, row, scales, is_renamed=True) for index in pair.indices]
    image = w.op(Code.CONCATENATION, rows, (2, size, channels), scales, axis=1)
    c = tuple(int(each) for each in module.weight)
    weight = ones(module, channels, (2, 1), c)
    moved = (first.zero_point - second.zero_point) * weight[0, 1, 0].astype(np.int64)
    product = KernelProduct(weight, is_depthwise=True)
    found = write_product(w, product, image, (2, size, channels), scales, bias_moved=moved)
    return w.reshaped(found, row, dims, w.scales)
