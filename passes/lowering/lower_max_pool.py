"""Max pools of levels, with windows of known sizes."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from ana_fx.errors import ConvertError
from ana_fx.graph import location
from ana_fx.passes.lowering.lowering_context import LoweringContext
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.tensor_spec import spec_of

__all__ = ["lower_adaptive_max_pool", "lower_max_pool"]


def lower_max_pool(context: LoweringContext, node: Node, module: Any) -> None:
    """Put an integer max pool, padded behind as far as its last window reaches, in the place of a max pool.

    Raises:
        ConvertError: A window holds padding only.
    """
    (source,) = node.all_input_nodes
    sizes, results = spec_of(source).layout.shape[2:], spec_of(node).layout.shape[2:]
    kernel, stride, padding, dilation = (
        _tuple(each, len(results)) for each in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    windows = zip(sizes, results, kernel, stride, padding, dilation, strict=True)
    if any(_has_empty_window(*each) for each in windows):
        raise ConvertError(
            f"{location(node)}: max pooling of {sizes} has windows that hold padding only, whose largest number is "
            f"minus infinity; needed a number in each; use less padding or dilation"
        )
    reach = [
        (result - 1) * s + d * (k - 1) + 1 - size - p
        for result, s, d, k, size, p in zip(results, stride, dilation, kernel, sizes, padding, strict=True)
    ]
    pads = tuple((p, max(0, after)) for p, after in zip(padding, reach, strict=True))
    context.replace(node, IntegerMaxPool(kernel, stride, pads, dilation), [source])


def lower_adaptive_max_pool(context: LoweringContext, node: Node, _: object) -> None:
    """Put an integer max pool in the place of an adaptive one.

    Raises:
        ConvertError: Windows have different sizes.
    """
    (source,) = node.all_input_nodes
    sizes, results = spec_of(source).layout.shape[2:], spec_of(node).layout.shape[2:]
    if any(size % result for size, result in zip(sizes, results, strict=True)):
        raise ConvertError(
            f"{location(node)}: adaptive max pooling from {sizes} to {results} has windows of different sizes; "
            f"needed an output size that divides the input's; pool to another size, or with nn.MaxPool2d"
        )
    kernel = tuple(size // result for size, result in zip(sizes, results, strict=True))
    rank = len(results)
    context.replace(node, IntegerMaxPool(kernel, kernel, ((0, 0),) * rank, (1,) * rank), [source])


def _has_empty_window(size: int, num_windows: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    starts = [index * stride - padding for index in range(num_windows)]
    return not all(any(0 <= start + dilation * k < size for k in range(kernel)) for start in starts)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
