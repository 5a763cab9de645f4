"""Writing layer maps that are products with weights: CONV_2D and DEPTHWISE_CONV_2D."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.channels_last.kernel_product import (
    KernelProduct,
    average_product,
    convolution_product,
    mean_product,
    ones,
)
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Code
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_clips import activation, clipped
from ana_fx.targets.tflite.write_pads import padded

Array = np.ndarray[Any, Any]

__all__ = ["write_average", "write_convolution", "write_identity", "write_linear", "write_mean", "write_product"]

_LEAST_INT4 = -8


def write_convolution(w: TfliteWriter, op: Convolution) -> HeldTensor:
    """Write CONV_2D, or DEPTHWISE_CONV_2D where each output has one input channel."""
    return _over_images(w, convolution_product(w.module, op, w.x.shape))


def write_average(w: TfliteWriter, op: Average) -> HeldTensor:
    """Write DEPTHWISE_CONV_2D with ones: TFLite's pools divide, and cannot change the scale at once."""
    product = average_product(w.module, op, w.x.shape)
    assert product is not None  # windows of several sizes were refused
    return _over_images(w, product)


def write_mean(w: TfliteWriter, op: Reduce) -> HeldTensor:
    """Write DEPTHWISE_CONV_2D with ones that spans what is averaged."""
    product = mean_product(w.module, op, w.x.shape)
    assert product is not None  # means over other axes were refused
    return _over_images(w, product)


def write_linear(w: TfliteWriter, op: Linear) -> HeldTensor:
    """Write CONV_2D over images that are one number high and wide, or as wide as there are rows.

    A flattened image is read as it lies, its weights follow it. FULLY_CONNECTED would do as well, but LiteRT's
    reference kernel rounds it in another way than TFLite Micro's.
    """
    weight = numpy(w.module.stored_weight().cpu()).astype(np.int8)
    num_outputs, num_inputs = weight.shape
    rows = w.shape[:-1]
    if not rows:
        weight = weight[:, w.x.positions]
        x = w.reshaped(w.x.index, w.x.dims, (1, 1, num_inputs), w.scales_of(w.x))
    else:
        x = w.arranged(w.x, w.x.shape, tuple(range(len(w.x.shape))))
        x = w.reshaped(x, w.x.shape, (1, math.prod(rows), num_inputs), w.scales_of(w.x))
    product = KernelProduct(weight.reshape(num_outputs, 1, 1, num_inputs), is_depthwise=False)
    found = write_product(w, product, x, (1, math.prod(rows), num_inputs), w.scales_of(w.x))
    if not rows:
        return w.held(found, (num_outputs, 1, 1), channels_last(3))  # as the next linear layer reads it
    found = w.reshaped(found, (1, math.prod(rows), num_outputs), w.shape, w.scales)
    return w.held(found, w.shape, tuple(range(len(w.shape))))


def write_identity(w: TfliteWriter, op: Identity) -> HeldTensor:
    """Write DEPTHWISE_CONV_2D with a kernel of one number."""
    x, staircase = w.x, w.module.staircase
    image, order = x.image, x.order
    if max(staircase.bias.numel(), staircase.weight_scale.numel(), w.module.sign.numel()) > 1:
        image, order = (x.shape[0], math.prod(x.shape[1:])), (1, 0)  # channels have numbers of their own
    index = w.arranged(x, image, order)
    dims = tuple(image[axis] for axis in order) or (1,)
    flat = (1, math.prod(dims[:-1]), dims[-1])
    product = KernelProduct(ones(w.module, dims[-1], (1, 1)), is_depthwise=True)
    index = w.reshaped(index, dims, flat, w.scales_of(x))
    found = w.reshaped(write_product(w, product, index, flat, w.scales_of(x)), flat, dims, w.scales)
    return w.held(found, image, order)


def _over_images(w: TfliteWriter, product: KernelProduct) -> HeldTensor:
    """A product with an image, or with a row, whose channels lie last."""
    channels, *sizes = w.x.shape
    height, width = (1, *sizes) if len(sizes) == 1 else sizes
    index = w.arranged(w.x, w.x.shape, channels_last(len(w.x.shape)))
    index = w.reshaped(index, (*sizes, channels), (height, width, channels), w.scales_of(w.x))
    found = write_product(w, product, index, (height, width, channels), w.scales_of(w.x))
    down, right = product.sizes((height, width))
    image: tuple[int, ...] = (product.num_outputs, down, right)
    if len(sizes) == 1:
        image = (product.num_outputs, right)
        found = w.reshaped(found, (1, right, product.num_outputs), (right, product.num_outputs), w.scales)
    return w.held(found, image, channels_last(len(image)))


def write_product(
    w: TfliteWriter,
    product: KernelProduct,
    x: int,
    dims: tuple[int, ...],
    scales: Scales,
    *,
    bias_moved: Array | int = 0,
) -> int:
    """Write the operator of a product.

    Args:
        w: Writes the node.
        product: The product.
        x: What it reads, with samples [height, width, channels].
        dims: Their shape.
        scales: What their integers stand for.
        bias_moved: What the bias is larger by than the staircase's.

    Returns:
        A tensor with samples [height, width, outputs].
    """
    product, x, dims, padding = padded(w, product, x, dims, scales)
    staircase, num_outputs = w.module.staircase, product.num_outputs
    weight_scale = np.broadcast_to(numpy(staircase.weight_scale), (num_outputs,)).astype(np.float32)
    bias = (np.broadcast_to(numpy(staircase.bias), (num_outputs,)) + bias_moved).astype(np.int32)
    axis = 3 if product.is_depthwise else 0
    is_int4 = w.target.packs_four_bits and _fits_four_bits(product.weight)
    weight = w.constant(product.weight, "weight", Scales(weight_scale, axis=axis), is_int4=is_int4)
    constants = [weight, w.constant(bias, "bias", Scales(weight_scale * scales.scale))]
    options: dict[str, Any] = {
        "padding": padding,
        "stride_h": product.stride[0],
        "stride_w": product.stride[1],
        "dilation_h_factor": product.dilation[0],
        "dilation_w_factor": product.dilation[1],
        "fused_activation_function": activation(w),
    }
    code = Code.CONV_2D
    if product.is_depthwise:
        code = Code.DEPTHWISE_CONV_2D
        options["depth_multiplier"] = num_outputs // dims[-1]
    given = (*product.sizes((dims[0], dims[1])), num_outputs)
    w.note(code.name, w.target.requantizer.value)
    return clipped(w, w.op(code, [x, *constants], given, **options), given)


def _fits_four_bits(weight: Array) -> bool:
    """Whether all its integers do: not where a channel with a negative gain has the lowest one turned around."""
    return int(weight.min()) >= _LEAST_INT4 and int(weight.max()) < -_LEAST_INT4
