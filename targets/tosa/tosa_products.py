"""Writing layer maps that are products with weights: CONV2D and DEPTHWISE_CONV2D, then RESCALE but for logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.kernel_product import KernelProduct
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.channels_last.product_writers import ProductWriters
from ana_fx.targets.channels_last.writer_dialect import Write
from ana_fx.targets.tosa.tosa_moves import sliced
from ana_fx.targets.tosa.tosa_rescale import requantized
from ana_fx.targets.tosa.tosa_schema import DataType, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["HEADS", "PRODUCTS", "bias_of", "constants_of", "fitted", "write_head"]

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]


def _product(w: TosaWriter, product: KernelProduct, x: int, dims: Shape) -> int:
    """Write the accumulators, and their levels."""
    given = (*product.sizes((dims[0], dims[1])), product.num_outputs)
    x, dims, padding = fitted(w, x, dims, product)
    attributes = {
        "pad": [each for pair in padding for each in pair],
        "stride": list(product.stride),
        "dilation": list(product.dilation),
        "acc_type": DataType.INT32,
    }
    if product.is_depthwise:
        weight = product.weight.reshape(*product.weight.shape[1:3], dims[-1], -1)
        inputs = [x, *constants_of(w, weight, bias_of(w, product.num_outputs))]
        return _given(w, Op.DEPTHWISE_CONV2D, w.int32(Op.DEPTHWISE_CONV2D, inputs, given, **attributes), given)
    return _given(w, Op.CONV2D, _grouped(w, product.weight, x, dims, given, attributes), given)


def _grouped(w: TosaWriter, weight: Array, x: int, dims: Shape, given: Shape, attributes: Mapping[str, Any]) -> int:
    """Write a CONV2D for each group of input channels, which see that many of the outputs."""
    size = weight.shape[3]
    groups = dims[-1] // size
    weights, biases, parts = np.split(weight, groups), np.split(bias_of(w, len(weight)), groups), []
    for group, (own, bias) in enumerate(zip(weights, biases, strict=True)):
        channels = (group * size, (group + 1) * size, 1)
        part = sliced(w, x, dims, [(0, dims[0], 1), (0, dims[1], 1), channels])
        inputs = [part, *constants_of(w, own, bias)]
        parts.append(w.int32(Op.CONV2D, inputs, (*given[:2], len(own)), **attributes))
    w.stored_bytes["weight"] = weight.nbytes
    return w.int32(Op.CONCAT, parts, given, axis=3) if groups > 1 else parts[0]


def constants_of(w: TosaWriter, weight: Array, bias: Array) -> list[int]:
    """What a convolution reads beside its input."""
    return [w.constant(weight, "weight"), w.constant(bias, "bias"), w.zero(w.x.zero_point), w.zero(0)]


def _given(w: TosaWriter, op: Op, accumulator: int, dims: Shape) -> int:
    """The levels of accumulators, or the accumulators of a head."""
    if isinstance(w.module, IntegerHead):
        w.note(op.name, "int32")
        return accumulator
    w.note(op.name, w.target.requantizer.value)
    return requantized(w, accumulator, dims)


def write_head(w: TosaWriter, head: IntegerHead) -> HeldTensor:
    """Write the accumulators of weights that are `factor` times the trained ones, with the bias."""
    return HEADS[type(head.operator)](w, head.operator)


def bias_of(w: TosaWriter, num_outputs: int) -> Array:
    """The bias of each output, int32."""
    bias = w.module.bias if isinstance(w.module, IntegerHead) else w.module.staircase.bias
    return np.broadcast_to(numpy(bias), (num_outputs,)).astype(np.int32)


def fitted(w: TosaWriter, x: int, dims: Shape, windows: Any) -> tuple[int, Shape, tuple[Pair, Pair]]:
    """An image without the rows and columns that no window sees, and the padding that is left: TOSA takes no others.

    Args:
        w: Writes the node.
        x: The image.
        dims: Its height, width and channels.
        windows: Has `padding`, `window` and `stride`, each down and to the right.
    """
    ends, padding = [], []
    axes = zip(dims[:2], windows.padding, windows.window, windows.stride, strict=True)
    for size, (before, after), reach, step in axes:
        unseen = (size + before + after - reach) % step
        padding.append((before, max(0, after - unseen)))
        ends.append((0, size - max(0, unseen - after), 1))
    seen = (ends[0][1], ends[1][1], dims[2])
    return sliced(w, x, dims, [*ends, (0, dims[2], 1)]), seen, (padding[0], padding[1])


PRODUCTS = ProductWriters(_product)
"""The writers of layer maps."""
HEADS: Mapping[type, Write] = {Convolution: PRODUCTS.convolution, Linear: PRODUCTS.linear}
"""Those of last layers with int32 outputs."""
