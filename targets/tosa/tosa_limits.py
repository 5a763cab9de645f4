"""What of a program cannot be written although the target's description can hold it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Concat, Pad, Permute, Reshape, Slice, Take
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.tensor_spec import sample_shape_of
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.target import Target
from ana_fx.targets.channels_last.layout_limits import (
    Limit,
    average_reasons,
    concat_reasons,
    convolution_reasons,
    map_of,
    mean_reasons,
    no_reasons,
    pool_reasons,
)
from ana_fx.targets.tosa.tosa_products import HEADS
from ana_fx.targets.tosa.tosa_rescale import MULTIPLIER_BITS

__all__ = ["LIMITS"]

_LARGEST = 2**31 - 1
_LARGEST_WINDOW = 8192  # along an axis, at level 8k


def _staircase_reasons(node: Node, operator: Operator, target: Target) -> list[str]:
    """Refuse other formulas than RESCALE's, accumulators from 2**(shift − 1) on, and such that leave 32 bits."""
    module, wanted = map_of(node), target.requantizer.value
    staircase = module.staircase
    if not isinstance(staircase, FixedPointStaircase) or staircase.rounding != wanted:
        return [f"its staircase is none of {wanted!r}, needed a model that was prepared for target {target.name!r}"]
    _, exponent = staircase.fixed_point()
    most = torch.clamp_max((1 << (MULTIPLIER_BITS - 1 - exponent)) - 1, _LARGEST)
    size = module.bound * staircase.factor + staircase.bias.long().abs()
    size, most = torch.broadcast_tensors(size, most)
    worst = int((size - most).argmax())
    if int(size[worst]) <= int(most[worst]):
        return []
    return [f"its accumulator can reach {int(size[worst])}, needed at most {int(most[worst])} for RESCALE"]


def _with_staircase(*limits: Limit) -> Limit:
    """Refuse what limits refuse, and staircases that RESCALE does not have."""
    every = (_staircase_reasons, *limits)
    return lambda node, operator, target: [reason for limit in every for reason in limit(node, operator, target)]


def _wide_convolution(node: Node, operator: Convolution, target: Target) -> list[str]:
    weight = map_of(node).weight
    assert weight is not None
    return _window_reasons([(size - 1) * d + 1 for size, d in zip(weight.shape[2:], operator.dilation, strict=True)])


def _wide_average(node: Node, operator: Average, target: Target) -> list[str]:
    window = operator.window((1, *sample_shape_of(node.all_input_nodes[0])))
    return _window_reasons(list(window[0]) if window else [])


def _wide_mean(node: Node, operator: Reduce, target: Target) -> list[str]:
    shape = sample_shape_of(node.all_input_nodes[0])
    return _window_reasons([shape[axis - 1] for axis in operator.axes])


def _window_reasons(sizes: list[int]) -> list[str]:
    largest = max(sizes, default=0)
    return [] if largest <= _LARGEST_WINDOW else [f"its window spans {largest} numbers, needed {_LARGEST_WINDOW}"]


def _head_reasons(node: Node, module: IntegerHead, target: Target) -> list[str]:
    operator = module.operator
    if type(operator) not in HEADS:
        return [f"its int32 output is that of a {operator.kind}, needed output='int8'"]
    return convolution_reasons(node, operator, target) if isinstance(operator, Convolution) else []


def _pool_reasons(node: Node, module: IntegerMaxPool, target: Target) -> list[str]:
    reasons = pool_reasons(node, module, target)
    if any(max(pair) >= size for pair, size in zip(module.padding, module.kernel, strict=True)):
        reasons.append(f"its max pool has padding {module.padding}, needed less than its kernel {module.kernel}")
    return reasons


LIMITS: Mapping[type, Limit] = {
    Average: _with_staircase(average_reasons, _wide_average),
    Concat: concat_reasons,
    Convolution: _with_staircase(convolution_reasons, _wide_convolution),
    IntegerHead: _head_reasons,
    IntegerMaxPool: _pool_reasons,
    Reduce: _with_staircase(mean_reasons, _wide_mean),
    **dict.fromkeys((Identity, Linear, Maximum, Minimum, Product, Sum), _staircase_reasons),
    **dict.fromkeys((IntegerSoftmax, IntegerTable, Pad, Permute, Reshape, Slice, Take), no_reasons),
}
"""The limit of every operator and module that the dialect of TOSA has a writer for."""
