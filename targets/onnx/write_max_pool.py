"""Writing max pools of stored levels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.file_borders import scalar

__all__ = ["write_max_pool"]


def write_max_pool(
    builder: Builder,
    path: str,
    module: IntegerMaxPool,
    x: ir.Value,
    sizes: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    pads_itself: bool,
    writes_zero_pads: bool,
) -> ir.Value:
    """MaxPool, behind a Pad where it is not trusted with pads, or takes none so large.

    Args:
        builder: Collects the nodes.
        path: The module's path.
        module: The pool.
        x: Stored levels.
        sizes: Sample shape of `x`.
        shape: Sample shape of the result.
        pads_itself: Whether MaxPool takes the pads.
        writes_zero_pads: Whether the attribute stands there without pads too.
    """
    dtype = x.dtype
    assert dtype is not None
    befores, afters = zip(*module.padding, strict=True)
    pads = [*befores, *afters]
    if any(pads) and not (pads_itself and _are_small(module)):
        x, pads = _pad_with_lowest(builder, path, x, dtype, sizes, module.padding), [0] * len(pads)
    attributes: dict[str, object] = {
        "kernel_shape": list(module.kernel),
        "strides": list(module.stride),
        "dilations": list(module.dilation),
    }
    # without "VALID" onnxruntime fuses a pad with zeros before it, and takes them for the lowest numbers
    attributes |= {"pads": pads} if any(pads) or writes_zero_pads else {"auto_pad": "VALID"}
    return builder.op("MaxPool", [x], path=path, dtype=dtype, shape=shape, attributes=attributes)


def _are_small(module: IntegerMaxPool) -> bool:
    """Whether all pads are smaller than their kernels, without gaps, as onnxruntime's MaxPool wants them."""
    return all(max(pair) < size for pair, size in zip(module.padding, module.kernel, strict=True))


def _pad_with_lowest(
    builder: Builder,
    path: str,
    x: ir.Value,
    dtype: ir.DataType,
    sizes: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> ir.Value:
    """A border of the smallest number, which is never the largest of a window."""
    befores, afters = zip((0, 0), (0, 0), *padding, strict=True)
    shape = (sizes[0], *(size + sum(pair) for size, pair in zip(sizes[1:], padding, strict=True)))
    pads = builder.constant(np.array([*befores, *afters], np.int64), f"{path}.pads")
    lowest = builder.constant(scalar(0 if dtype is ir.DataType.UINT8 else -128, dtype), f"{path}.lowest")
    return builder.op("Pad", [x, pads, lowest], path=path, dtype=dtype, shape=shape)
