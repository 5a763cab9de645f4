"""Writing layer maps that are products with weights, whatever operator computes a product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
from ana_fx.targets.channels_last.layout_writer import LayoutWriter, Shape

__all__ = ["ProductWriters"]


@dataclass(frozen=True)
class ProductWriters:
    """Writers of layer maps.

    Args:
        write: From what writes the node, a product, the tensor that it reads, with samples [height, width, channels]
            of the node's first input, and their shape, to a tensor with samples [height, width, outputs].
    """

    write: Callable[[Any, KernelProduct, int, Shape], int]

    def convolution(self, w: LayoutWriter, op: Convolution) -> HeldTensor:
        """Write a convolution, or a depthwise one where each output has one input channel."""
        return self._over_images(w, convolution_product(w.module, op, w.x.shape))

    def average(self, w: LayoutWriter, op: Average) -> HeldTensor:
        """Write a depthwise convolution with ones: average pools divide, and cannot change the scale at once."""
        product = average_product(w.module, op, w.x.shape)
        assert product is not None  # windows of several sizes were refused
        return self._over_images(w, product)

    def mean(self, w: LayoutWriter, op: Reduce) -> HeldTensor:
        """Write a depthwise convolution with ones that spans what is averaged."""
        product = mean_product(w.module, op, w.x.shape)
        assert product is not None  # means over other axes were refused
        return self._over_images(w, product)

    def linear(self, w: LayoutWriter, op: Linear) -> HeldTensor:
        """Write a convolution over images that are one number high and wide, or as wide as there are rows.

        A flattened image is read as it lies, its weights follow it.
        """
        weight = numpy(w.module.stored_weight().cpu()).astype(np.int8)
        num_outputs, num_inputs = weight.shape
        rows = w.shape[:-1]
        if not rows:
            weight = weight[:, w.x.positions]
            x = w.reshape(w.x, w.x.index, w.x.dims, (1, 1, num_inputs))
        else:
            x = w.arranged(w.x, w.x.shape, tuple(range(len(w.x.shape))))
            x = w.reshape(w.x, x, w.x.shape, (1, math.prod(rows), num_inputs))
        product = KernelProduct(weight.reshape(num_outputs, 1, 1, num_inputs), is_depthwise=False)
        found = self.write(w, product, x, (1, math.prod(rows), num_inputs))
        if not rows:
            return w.held(found, (num_outputs, 1, 1), channels_last(3))  # as the next linear layer reads it
        found = w.reshape(None, found, (1, math.prod(rows), num_outputs), w.shape)
        return w.held(found, w.shape, tuple(range(len(w.shape))))

    def identity(self, w: LayoutWriter, op: Identity) -> HeldTensor:
        """Write a depthwise convolution with a kernel of one number."""
        x, staircase = w.x, w.module.staircase
        image, order = x.image, x.order
        if max(staircase.bias.numel(), staircase.weight_scale.numel(), w.module.sign.numel()) > 1:
            image, order = (x.shape[0], math.prod(x.shape[1:])), (1, 0)  # channels have numbers of their own
        index = w.arranged(x, image, order)
        dims = tuple(image[axis] for axis in order) or (1,)
        flat = (1, math.prod(dims[:-1]), dims[-1])
        product = KernelProduct(ones(w.module, dims[-1], (1, 1)), is_depthwise=True)
        index = w.reshape(x, index, dims, flat)
        found = w.reshape(None, self.write(w, product, index, flat), flat, dims)
        return w.held(found, image, order)

    def _over_images(self, w: LayoutWriter, product: KernelProduct) -> HeldTensor:
        """Write a product with images, or with rows, whose channels lie last."""
        channels, *sizes = w.x.shape
        height, width = (1, *sizes) if len(sizes) == 1 else sizes
        index = w.arranged(w.x, w.x.shape, channels_last(len(w.x.shape)))
        index = w.reshape(w.x, index, (*sizes, channels), (height, width, channels))
        found = self.write(w, product, index, (height, width, channels))
        down, right = product.sizes((height, width))
        image: tuple[int, ...] = (product.num_outputs, down, right)
        if len(sizes) == 1:
            image = (product.num_outputs, right)
            found = w.reshape(None, found, (1, right, product.num_outputs), (right, product.num_outputs))
        return w.held(found, image, channels_last(len(image)))
