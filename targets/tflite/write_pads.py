"""Padding: what kernels do themselves, and operators for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ana_fx.targets.channels_last.kernel_product import KernelProduct
from ana_fx.targets.tflite.model_builder import Scales
from ana_fx.targets.tflite.schema import Code, Padding
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["kernel_padding", "padded", "write_pad"]

_NONE = ((0, 0), (0, 0))
Pair = tuple[int, int]


def kernel_padding(sizes: Pair, padding: tuple[Pair, Pair], window: Pair, stride: Pair) -> Padding | None:
    """Return the kernel's name of a padding: VALID is none; None if it is not SAME either.

    SAME gives ⌈size / stride⌉ numbers along an axis, and pads what these need, the larger half behind.
    """
    if padding == _NONE:
        return Padding.VALID
    for size, pads, reach, step in zip(sizes, padding, window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        if pads != (total // 2, total - total // 2):
            return None
    return Padding.SAME


def padded(
    w: TfliteWriter, product: KernelProduct, x: int, dims: tuple[int, ...], scales: Scales
) -> tuple[KernelProduct, int, tuple[int, ...], Padding]:
    """Write PAD where a product's kernel does not know its padding.

    Returns:
        The product with the padding that is left to the kernel, the tensor that it reads, the shape of that tensor,
        and the kernel's name of the padding.
    """
    padding = kernel_padding((dims[0], dims[1]), product.padding, product.window, product.stride)
    if padding is not None:
        return product, x, dims, padding
    pads = [*product.padding, (0, 0)]
    x, dims = write_pad(w, x, dims, pads, scales)
    return replace(product, padding=_NONE), x, dims, Padding.VALID


def write_pad(
    w: TfliteWriter, x: int, dims: tuple[int, ...], pads: Sequence[Pair], scales: Scales, fill: int | None = None
) -> tuple[int, tuple[int, ...]]:
    """Write PAD, which adds the byte of level 0, or PADV2 with another byte; return what it gives, and its shape."""
    wide = tuple(size + sum(pair) for size, pair in zip(dims, pads, strict=True))
    amounts = w.constant(np.array([(0, 0), *pads], np.int32), "pads")
    if fill is None or fill == scales.zero_point:
        return w.op(Code.PAD, [x, amounts], wide, scales), wide
    filler = w.constant(np.array([fill], np.int8), "fill", scales)
    return w.op(Code.PADV2, [x, amounts, filler], wide, scales), wide
