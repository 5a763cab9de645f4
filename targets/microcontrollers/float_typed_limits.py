"""What the dialects of DORY and Deeploy cannot hold although the description of their targets can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from ana_fx.graph import location, module_of
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Concat, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Quantize, QuantizeImage
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.targets.microcontrollers.common_shift import CommonShift, common_shift
from ana_fx.targets.microcontrollers.plain_convolution import plain_convolution

__all__ = ["LIMITS", "Limit", "Limits", "limited_by", "map_limit"]

Limit = Callable[[Node, Any], list[str]]
Limits = Mapping[type, Limit]


def limited_by(limits: Limits) -> Callable[[GraphModule], list[str]]:
    """Make a function that lists the nodes of a program that break the limit of their class, a line a reason."""

    def misfits(program: GraphModule) -> list[str]:
        found = []
        for node in program.graph.nodes:
            module = module_of(node)
            limit = limits.get(type(module))
            found += [f"{location(node)}: {reason}" for reason in (limit(node, module) if limit else [])]
        return found

    return misfits


def map_limit(limit: Callable[[Node, IntegerMap, CommonShift], list[str]]) -> Limit:
    """Make the limit of layer maps from that of their requantizers, which is asked of layers that the dialect has."""

    def limited(node: Node, module: IntegerMap) -> list[str]:
        reasons = _layer_limit(node, module)
        if reasons:
            return reasons
        line = common_shift(module)
        if line is None:
            return ["its requantizer is corrected by a table of thresholds, needed a multiplication and a shift"]
        return limit(node, module, line)

    return limited


def _input_limit(node: Node, module: Quantize) -> list[str]:
    if module.integer_type.zero_point is None:
        return []
    return [f"its levels are {module.integer_type}, needed a zero point of 0: normalise images with mean 0"]


def _movement_limit(node: Node, module: object) -> list[str]:
    return [f"it is a {type(module).__name__.lower()}, needed a reshape, the only movement there is"]


def _reshape_limit(node: Node, module: Reshape) -> list[str]:
    sizes = [int(np.prod(sample_shape_of(each))) for each in (node, node.all_input_nodes[0])]
    return [] if sizes[0] == sizes[1] else ["it moves numbers into the batch, needed one sample"]


def _pool_limit(node: Node, module: IntegerMaxPool) -> list[str]:
    reasons = []
    if set(module.dilation) != {1}:
        reasons.append(f"its windows have gaps (dilation {module.dilation}), needed none")
    levels = integer_type_of(node)
    if any(map(any, module.padding)) and levels is not None and levels.signed:
        reasons.append("it pads negative levels, needed unsigned ones: put a ReLU before it")
    return reasons


def _head_limit(node: Node, module: IntegerHead) -> list[str]:
    if type(module.operator) is Linear:
        return _linear_limit(node, module)
    return ["it is a convolution with int32 output, needed a linear last layer or output='int8'"]


def _layer_limit(node: Node, module: IntegerMap) -> list[str]:
    """Say why a layer is no linear one, no plain convolution and no sum of two tensors."""
    limit = _OPERATOR_LIMITS.get(type(module.operator))
    return limit(node, module) if limit else []


def _linear_limit(node: Node, module: IntegerHead | IntegerMap) -> list[str]:
    shape = sample_shape_of(node.all_input_nodes[0])
    return [] if len(shape) == 1 else [f"it is a linear layer over {shape}, needed one axis: flatten its input"]


def _window_limit(node: Node, module: IntegerMap) -> list[str]:
    operator, shape = module.operator, sample_shape_of(node.all_input_nodes[0])
    if plain_convolution(operator, module.weight, shape) is not None:
        return []
    kind = type(operator).__name__.lower()
    return [f"it is this {kind} of {shape}, needed windows of one size over channels, or all of the image"]


def _sum_limit(node: Node, module: IntegerMap) -> list[str]:
    assert module.weight is not None
    reasons = []
    coefficients = [int(each) for each in module.weight.tolist()]
    if len({sample_shape_of(source) for source in node.all_input_nodes}) > 1:
        reasons.append("its tensors have different shapes, needed one")
    if len(set(coefficients)) > 1:
        reasons.append(f"its tensors count {coefficients[0]} to {coefficients[1]}, needed one scale for both")
    return reasons


_OPERATOR_LIMITS: Limits = {
    **dict.fromkeys((Average, Convolution, Identity, Reduce), _window_limit),
    Linear: _linear_limit,
    Sum: _sum_limit,
}
"""Limits by operator; all others are refused by the description of the targets, or have no writer."""

LIMITS: Limits = {
    **dict.fromkeys((Concat, Pad, Permute, Rearrange, Slice, Take), _movement_limit),
    **dict.fromkeys((Quantize, QuantizeImage), _input_limit),
    Reshape: _reshape_limit,
    IntegerHead: _head_limit,
    IntegerMaxPool: _pool_limit,
}
"""Limits that both dialects have, by the class of module; those of layer maps are each dialect's own."""
