"""Writing what makes images larger: TRANSPOSE_CONV and RESIZE_NEAREST_NEIGHBOR."""

from __future__ import annotations

from typing import Any

import numpy as np

from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.channels_last.kernel_product import down_and_right, turned_around
from ana_fx.targets.channels_last.upsamplings import NearestResize, SpreadConvolution
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Code, Padding
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_clips import clipped
from ana_fx.targets.tflite.write_moves import strided_slice

__all__ = ["write_resize", "write_transposed"]

Array = np.ndarray[Any, Any]


def write_resize(w: TfliteWriter, form: NearestResize) -> HeldTensor:
    """Write RESIZE_NEAREST_NEIGHBOR by whole factors, for which all kernels take the same neighbour."""
    channels, height, width = w.x.shape
    order = channels_last(3)
    size = (height * form.factors[0], width * form.factors[1])
    inputs = [w.arranged(w.x, w.x.shape, order), w.constant(np.array(size, np.int32), "size")]
    index = w.op(Code.RESIZE_NEAREST_NEIGHBOR, inputs, (*size, channels), w.scales_of(w.x))
    return w.moved(w.x, index, w.shape, order)


def write_transposed(w: TfliteWriter, form: SpreadConvolution) -> HeldTensor:
    """Write TRANSPOSE_CONV, which rounds as CONV_2D does; SAME drops rows where it drops the right ones, else a slice.

    It knows neither groups nor dilation, for which its weight has zeros. The batch is a part of its output's shape, a
    constant: the file takes one sample.
    """
    channels, *sizes = w.x.shape
    num_outputs, *wanted = w.shape
    order, scales = channels_last(len(w.shape)), w.scales_of(w.x)
    image, result = down_and_right(tuple(sizes), 1), down_and_right(tuple(wanted), 1)
    strides, margins = down_and_right(form.strides, 1), down_and_right(form.margins, 0)
    x = w.arranged(w.x, w.x.shape, order)
    x = w.reshaped(x, (*sizes, channels), (*image, channels), scales)
    weight = turned_around(numpy(w.module.stored_weight().cpu()), form.convolution)
    reached = [(size - 1) * s + k for size, s, k in zip(image, strides, weight.shape[1:3], strict=True)]
    axes = list(zip(image, strides, result, margins, reached, strict=True))
    is_same = all(size * s == r and r <= k and m == (k - r) // 2 for size, s, r, m, k in axes)
    rows = result if is_same else tuple(max(k, m + r) for _, _, r, m, k in axes)
    shape = w.constant(np.array([1, *rows, num_outputs], np.int32), "shape")
    weight_index, bias = _constants(w, weight, scales)
    dims: tuple[int, ...] = (*rows, num_outputs)
    index = w.op(
        Code.TRANSPOSE_CONV,
        [shape, weight_index, x, bias],
        dims,
        padding=Padding.SAME if is_same else Padding.VALID,
        stride_h=strides[0],
        stride_w=strides[1],
    )
    w.builder.takes_one_sample = True
    w.note(Code.TRANSPOSE_CONV.name, w.target.requantizer.value)
    index = clipped(w, index, dims, has_activation=False)
    if rows != result:
        slices = [(m, m + r, 1) for m, r in zip(margins, result, strict=True)]
        index = strided_slice(w, index, [*slices, (0, num_outputs, 1)], w.scales)
    index = w.reshaped(index, (*result, num_outputs), (*wanted, num_outputs), w.scales)
    return w.held(index, w.shape, order)


def _constants(w: TfliteWriter, weight: Array, scales: Scales) -> tuple[int, int]:
    """Add the constants of a weight whose first axis is its outputs, and of its bias; return their indices."""
    staircase, shape = w.module.staircase, (len(weight),)
    weight_scale = np.broadcast_to(numpy(staircase.weight_scale), shape).astype(np.float32)
    bias = np.broadcast_to(numpy(staircase.bias), shape).astype(np.int32)
    index = w.constant(weight, "weight", Scales(weight_scale))
    return index, w.constant(bias, "bias", Scales(weight_scale * scales.scale))
