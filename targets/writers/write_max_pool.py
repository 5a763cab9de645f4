"""Writing max pools of stored levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.writers.write_borders import scalar

__all__ = ["write_max_pool"]


def write_max_pool(
    w: NodeWriter, module: IntegerMaxPool, *, pads_itself: bool = False, writes_zero_pads: bool = False
) -> StoredTensor:
    """Write MaxPool, behind a Pad where it is not trusted with pads, or takes none so large.

    Args:
        w: Writes the node.
        module: The pool.
        pads_itself: Whether MaxPool takes the pads; readers disagree on uneven ones.
        writes_zero_pads: Whether the attribute stands there without pads too.
    """
    x = w.x
    befores, afters = zip(*module.padding, strict=True)
    pads = [*befores, *afters]
    value = x.value
    if any(pads) and not (pads_itself and _are_small(module)):
        value, pads = _pad_with_lowest(w, module.padding), [0] * len(pads)
    attributes: dict[str, Any] = {
        "kernel_shape": list(module.kernel),
        "strides": list(module.stride),
        "dilations": list(module.dilation),
    }
    # without "VALID" onnxruntime fuses a pad with zeros before it, and takes them for the lowest numbers
    attributes |= {"pads": pads} if any(pads) or writes_zero_pads else {"auto_pad": "VALID"}
    return replace(x, value=w.op("MaxPool", value, dtype=x.dtype, **attributes), shape=w.shape)


def _are_small(module: IntegerMaxPool) -> bool:
    """Whether all pads are smaller than their kernels, without gaps, as onnxruntime's MaxPool wants them."""
    return all(max(pair) < size for pair, size in zip(module.padding, module.kernel, strict=True))


def _pad_with_lowest(w: NodeWriter, padding: tuple[tuple[int, int], ...]) -> ir.Value:
    """Write a border of the smallest number, which is never the largest of a window."""
    dtype, (channels, *sizes) = w.x.dtype, w.x.shape
    befores, afters = zip((0, 0), (0, 0), *padding, strict=True)
    shape = (channels, *(size + sum(pair) for size, pair in zip(sizes, padding, strict=True)))
    pads = w.integers([*befores, *afters], "pads")
    lowest = w.constant(scalar(0 if dtype is ir.DataType.UINT8 else np.iinfo(np.int8).min, dtype), "lowest")
    return w.op("Pad", w.x.value, pads, lowest, shape=shape, dtype=dtype)
