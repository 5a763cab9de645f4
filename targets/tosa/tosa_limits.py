"""What of a program cannot be written although the target's description can hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from ana_fx.graph import location, module_of
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.reduce import Reduce
from ana_fx.program.data_movement import Concat
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.tensor_spec import sample_shape_of, spec_of
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.targets.channels_last.layout_limits import (
    average_reasons,
    convolution_reasons,
    layout_reasons,
    mean_reasons,
)
from ana_fx.targets.tosa.tosa_products import HEADS
from ana_fx.targets.tosa.tosa_rescale import MULTIPLIER_BITS

__all__ = ["misfits_of"]

_LARGEST = 2**31 - 1
_LARGEST_WINDOW = 8192


def misfits_of(node: Node) -> list[str]:
    """Say why a node cannot be written, a reason for each, with its place."""
    module = module_of(node)
    reasons = layout_reasons(node)
    if isinstance(module, IntegerMap):
        limit = _LIMITS.get(type(module.operator))
        reasons += [*_staircase_reasons(module), *(limit(node, module) if limit else []), *_size_reasons(node, module)]
    elif isinstance(module, IntegerHead):
        reasons += _head_reasons(node, module)
    elif isinstance(module, IntegerMaxPool):
        reasons += _pool_reasons(module)
    elif isinstance(module, Concat) and len({spec_of(each).layout.batch_axis for each in node.all_input_nodes}) > 1:
        reasons.append("it joins a constant, needed tensors that depend on the input")
    return [f"{location(node)}: {reason}" for reason in reasons]


def _staircase_reasons(module: IntegerMap) -> list[str]:
    """RESCALE takes values below 2**(shift − 1), and accumulators have 32 bits."""
    staircase, wanted = module.staircase, Requantizer.SINGLE_ROUNDING.value
    if not isinstance(staircase, FixedPointStaircase) or staircase.rounding != wanted:
        return [f"its staircase is none of {wanted!r}, needed a model that was prepared for target 'tosa'"]
    _, exponent = staircase.fixed_point()
    most = torch.clamp_max((1 << (MULTIPLIER_BITS - 1 - exponent)) - 1, _LARGEST)
    size = module.bound * staircase.factor + staircase.bias.long().abs()
    excess = (size - most).argmax()
    found, allowed = (int(each.expand(len(size - most))[excess]) for each in (size, most))
    if found <= allowed:
        return []
    return [f"its accumulator can reach {found}, needed at most {allowed} for RESCALE"]


def _size_reasons(node: Node, module: IntegerMap) -> list[str]:
    """Level 8k has windows of 8,192 numbers along an axis."""
    op, shape = module.operator, sample_shape_of(node.all_input_nodes[0])
    sizes: tuple[int, ...] = ()
    if isinstance(op, Convolution):
        assert module.weight is not None
        sizes = tuple(size * step for size, step in zip(module.weight.shape[2:], op.dilation, strict=True))
    elif isinstance(op, Average):
        sizes = (op.window((1, *shape)) or ((),))[0]
    elif isinstance(op, Reduce):
        sizes = tuple(shape[axis - 1] for axis in op.axes)
    largest = max(sizes, default=0)
    return [] if largest <= _LARGEST_WINDOW else [f"its window spans {largest} numbers, needed {_LARGEST_WINDOW}"]


def _head_reasons(node: Node, module: IntegerHead) -> list[str]:
    if type(module.operator) not in HEADS:
        return [f"its int32 output is that of a {module.operator.kind}, needed output='int8'"]
    return convolution_reasons(node, module) if isinstance(module.operator, Convolution) else []


def _pool_reasons(module: IntegerMaxPool) -> list[str]:
    if set(module.dilation) != {1}:
        return [f"its max pool has dilation {module.dilation}, needed 1"]
    pads = zip(module.padding, module.kernel, strict=True)
    if any(max(pair) >= size for pair, size in pads):
        return [f"its max pool has padding {module.padding}, needed less than its kernel {module.kernel}"]
    return []


_LIMITS: Mapping[type, Callable[[Node, Any], list[str]]] = {
    Average: average_reasons,
    Convolution: convolution_reasons,
    Reduce: mean_reasons,
}
