"""Writing layer maps that are products with weights: CONV_2D and DEPTHWISE_CONV_2D.

Linear layers are CONV_2D too. FULLY_CONNECTED would do as well, but LiteRT's reference kernel rounds it in another way
than TFLite Micro's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.kernel_product import KernelProduct
from ana_fx.targets.channels_last.product_writers import ProductWriters
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Code
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_clips import activation, clipped
from ana_fx.targets.tflite.write_pads import padded

Array = np.ndarray[Any, Any]

__all__ = ["PRODUCTS", "write_product"]

_LEAST_INT4 = -8


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
        x: The tensor that it reads, with samples [height, width, channels].
        dims: The shape of these samples.
        scales: Their scale and zero point.
        bias_moved: How much larger the bias is than the staircase's.

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
    """Whether four bits hold all its integers: not 8, which a lowest level becomes where a gain is negative."""
    return int(weight.min()) >= _LEAST_INT4 and int(weight.max()) < -_LEAST_INT4


def _of_first_input(w: TfliteWriter, product: KernelProduct, x: int, dims: tuple[int, ...]) -> int:
    return write_product(w, product, x, dims, w.scales_of(w.x))


PRODUCTS = ProductWriters(_of_first_input)
"""The writers of layer maps."""
