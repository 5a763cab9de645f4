"""Layer maps as what convolutions of images compute whose channels lie last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.reduce import Reduce
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.staircase import ScaledStaircase
from ana_fx.targets.arrays_of_tensors import numpy

__all__ = [
    "KernelProduct",
    "average_product",
    "convolution_product",
    "down_and_right",
    "mean_product",
    "ones",
    "turned_around",
]

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]


@dataclass(frozen=True)
class KernelProduct:
    """A product of an image [height, width, channels] with a weight.

    Args:
        weight: Integers in the layout of TFLite, [out, height, width, in / groups]; [1, height, width, out] if it is
            depthwise.
        is_depthwise: Whether each output has one input channel.
        stride: Distance of windows, down and to the right.
        padding: Rows of zeros (above, below) and columns (left, right).
        dilation: Distance of a window's numbers, down and to the right.
    """

    weight: Array
    is_depthwise: bool
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def window(self) -> Pair:
        """Height and width of the part of an image that one output reads."""
        height, width = self.weight.shape[1:3]
        return (height - 1) * self.dilation[0] + 1, (width - 1) * self.dilation[1] + 1

    @property
    def num_outputs(self) -> int:
        """The channels that it gives."""
        return int(self.weight.shape[3 if self.is_depthwise else 0])

    def sizes(self, image: Pair) -> Pair:
        """Height and width of what it gives for an image of that height and width."""
        ends = zip(image, self.padding, self.window, self.stride, strict=True)
        down, right = ((size + sum(pads) - reach) // step + 1 for size, pads, reach, step in ends)
        return down, right


def convolution_product(module: IntegerMap, op: Convolution, shape: tuple[int, ...]) -> KernelProduct:
    """Return a convolution as a product; a convolution over rows is one over images of height 1."""
    weight = module.stored_weight().cpu()
    weight = weight.unsqueeze(2) if op.rank == 1 else weight
    channels = shape[0]
    is_depthwise = op.groups == channels > 1
    stored = weight.permute(1, 2, 3, 0) if is_depthwise else weight.permute(0, 2, 3, 1)
    return KernelProduct(
        numpy(stored.contiguous()).astype(np.int8),
        is_depthwise,
        down_and_right(op.stride, 1),
        down_and_right(op.padding, (0, 0)),
        down_and_right(op.dilation, 1),
    )


def average_product(module: IntegerMap, op: Average, shape: tuple[int, ...]) -> KernelProduct | None:
    """Return an average as a depthwise convolution with ones; None where its windows have several sizes."""
    window = op.window((1, *shape))
    if window is None:
        return None
    kernel, stride, padding = window
    pads = tuple((pad, pad) for pad in padding)
    weight = ones(module, shape[0], down_and_right(kernel, 1))
    return KernelProduct(weight, True, down_and_right(stride, 1), down_and_right(pads, (0, 0)))


def mean_product(module: IntegerMap, op: Reduce, shape: tuple[int, ...]) -> KernelProduct | None:
    """Return a mean over axes of an image as a depthwise convolution that spans them; None over other axes."""
    sizes = shape[1:]
    if not 1 <= len(sizes) <= 2 or not set(op.axes) <= set(range(2, 2 + len(sizes))):
        return None
    kernel = tuple(size if axis in op.axes else 1 for axis, size in enumerate(sizes, start=2))
    return KernelProduct(ones(module, shape[0], down_and_right(kernel, 1)), True)


def ones(module: IntegerMap, channels: int, kernel: Pair, coefficients: tuple[int, ...] = (1,)) -> Array:
    """Make a depthwise kernel of ones, or of one coefficient a row, with the sign and head-room of each channel."""
    staircase = module.staircase
    assert isinstance(staircase, ScaledStaircase)
    rows = np.broadcast_to(np.array(coefficients, np.int64).reshape(1, -1, 1, 1), (1, *kernel, 1))
    factors = numpy(module.sign.cpu()) * staircase.factor * np.ones(channels, np.int64)
    return np.asarray(rows * factors, np.int8)


def down_and_right(values: tuple[Any, ...], default: Any) -> tuple[Any, Any]:
    """Return the values for (height, width); rows have a width alone, and `default` for their height."""
    return (default, values[0]) if len(values) == 1 else (values[0], values[1])


def turned_around(weight: Array, op: Convolution) -> Array:
    """Turn the kernel of a convolution, [out, in / groups, *size], around, as [out, height, width, in]."""
    weight = weight.reshape(*weight.shape[:2], *down_and_right(weight.shape[2:], 1))
    num_outputs, num_inputs, height, width = weight.shape
    down, right = down_and_right(op.dilation, 1)
    wide = np.zeros((num_outputs, (height - 1) * down + 1, (width - 1) * right + 1, num_inputs * op.groups), np.int8)
    for group in range(op.groups):
        outputs = slice(group * num_outputs // op.groups, (group + 1) * num_outputs // op.groups)
        inputs = slice(group * num_inputs, (group + 1) * num_inputs)
        wide[outputs, ::down, ::right, inputs] = weight[outputs, :, ::-1, ::-1].transpose(0, 2, 3, 1)
    return wide
