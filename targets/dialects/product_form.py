"""Layer maps as products with weights: the one form of convolutions, linear layers, averages, means and rescales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.targets.dialects.qlinear_proofs import qlinear_staircase
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.writers.convolution_attributes import convolution_attributes, window_attributes
from ana_fx.targets.writers.weight_bytes import is_dense

__all__ = [
    "ProductForm",
    "average_form",
    "convolution_form",
    "identity_form",
    "linear_form",
    "mean_form",
    "read_image",
]


@dataclass(frozen=True)
class ProductForm:
    """A layer map as the product of an image, or of rows, with a weight.

    Args:
        weight: The integers as they are multiplied, head-room and signs included, [out, in / groups, …].
        attributes: Those of the convolution; none of a linear layer.
        image_in: Sample shape in which the input is read.
        image_out: Sample shape of the product.
        is_dense: Whether an output multiplies several inputs with trained weights.
        is_trained: Whether the weight was trained, rather than made of ones.
    """

    weight: Tensor
    attributes: dict[str, Any]
    image_in: tuple[int, ...]
    image_out: tuple[int, ...]
    is_dense: bool = False
    is_trained: bool = False


def read_image(w: NodeWriter, form: ProductForm) -> ir.Value:
    """Write the first input in the shape that the product reads; a number for each sample becomes one channel first."""
    value = w.x.value if w.x.shape else w.reshape(w.x.value, (1,))
    return w.reshape(value, form.image_in)


def linear_form(w: NodeWriter, op: Linear) -> ProductForm:
    """A linear layer is a product of rows."""
    weight = _trained(w)
    out, size = weight.shape
    return ProductForm(weight, {}, (size,), (out,), is_dense=True, is_trained=True)


def convolution_form(w: NodeWriter, op: Convolution) -> ProductForm:
    """A convolution is one already."""
    weight = _trained(w)
    attributes = convolution_attributes(op)
    return ProductForm(weight, attributes, w.x.shape, w.shape, is_dense=is_dense(op, weight), is_trained=True)


def average_form(w: NodeWriter, op: Average) -> ProductForm | None:
    """An average is a depthwise convolution with ones; None where its windows are of several sizes."""
    if op.window((1, *w.x.shape)) is None:
        return None
    return ProductForm(_ones(w, op.kernel), window_attributes(op, w.x.shape[0]), w.x.shape, w.shape)


def identity_form(w: NodeWriter, op: Identity) -> ProductForm:
    """A rescale is a depthwise 1×1 convolution; a number for each sample is an image of one channel."""
    shape = w.x.shape or (1,)
    image = (shape[0], math.prod(shape[1:]), 1)
    return ProductForm(_ones(w, (1, 1)), {"group": shape[0]}, image, image)


def mean_form(w: NodeWriter, op: Reduce) -> ProductForm | None:
    """A mean over whole images is a depthwise convolution with kernels of their size; None where it is over less."""
    channels, *sizes = w.x.shape or (1,)
    if not sizes or sorted(op.axes) != list(range(2, 2 + len(sizes))):
        return None
    window = Average(len(sizes), tuple(sizes), tuple(sizes), (0,) * len(sizes))
    image_out = (channels, *[1] * len(sizes))
    return ProductForm(_ones(w, tuple(sizes)), window_attributes(window, channels), w.x.shape, image_out)


def _trained(w: NodeWriter) -> Tensor:
    assert w.weight is not None
    return w.weight.to(torch.int32) * qlinear_staircase(w.module).factor


def _ones(w: NodeWriter, kernel: tuple[int, ...]) -> Tensor:
    """Make a kernel of ones for each channel, with its sign and the head-room."""
    channels = (w.x.shape or (1,))[0]
    sign: Tensor = w.module.sign.to(torch.int32).expand(channels)
    ones = (sign * qlinear_staircase(w.module).factor).reshape(-1, 1, *[1] * len(kernel))
    return ones.expand(-1, 1, *kernel).contiguous()
