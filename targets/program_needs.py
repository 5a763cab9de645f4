"""What a program needs of a target, and what of it a target cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import location, module_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.data_movement import Concat, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.program.integer_layers import Accumulating, IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.integer_modules import IntegerConstant, IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.tensor_spec import has_spec, integer_type_of
from ana_fx.target import LayerNeeds, Target

__all__ = ["MODULE_KINDS", "needs_of", "program_misfits"]

Types = tuple[IntegerType, ...]

MODULE_KINDS: Mapping[type, str] = {
    **dict.fromkeys((Concat, Pad, Permute, Rearrange, Reshape, Slice, Take), "movement"),
    IntegerConstant: "constant",
    IntegerMaxPool: "max_pool",
    IntegerSoftmax: "softmax",
    IntegerTable: "table",
}
"""By which of `ana_fx.target.OPERATORS` a target says that it has a module without an operator of its own."""


def program_misfits(program: GraphModule, target: Target) -> list[str]:
    """List every reason why a target's description cannot hold a program, with its place."""
    misfits = []
    for node in program.graph.nodes:
        module = module_of(node)
        known = [integer_type_of(source) for source in node.all_input_nodes if has_spec(source)]
        inputs = tuple(each for each in known if each is not None)
        needs = None if module is None else needs_of(module, inputs)
        if needs is not None:
            reasons = [*target.refusals(needs), *_accumulator_reasons(module, target)]
            misfits += [f"{location(node)}: {reason}" for reason in reasons]
    return misfits


def needs_of(module: nn.Module, inputs: Types = ()) -> LayerNeeds | None:
    """Return what a module with inputs of these types needs of a target; None for one that every target has."""
    needs = _NEEDS.get(type(module))
    return None if needs is None else needs(module, inputs)


def _map_needs(module: IntegerMap, inputs: Types) -> LayerNeeds:
    return LayerNeeds(
        module.operator.kind,
        weight=_weight_type(module),
        inputs=inputs,
        output=module.integer_type,
        num_gains=_num_gains(module),
        num_axes=module.operator.num_spatial_axes,
    )


def _codebook_needs(module: IntegerThresholds, inputs: Types) -> LayerNeeds:
    num_axes = module.operator.num_spatial_axes
    return LayerNeeds(module.operator.kind, _weight_type(module), inputs, module.integer_type, num_axes=num_axes)


def _head_needs(module: IntegerHead, inputs: Types) -> LayerNeeds:
    num_axes, weight = module.operator.num_spatial_axes, _weight_type(module)
    return LayerNeeds(module.operator.kind, weight=weight, inputs=inputs, num_axes=num_axes, leaves_logits=True)


def _float_needs(module: OperatorMap, inputs: Types) -> LayerNeeds:
    return LayerNeeds(module.operator.kind, num_axes=module.operator.num_spatial_axes, leaves_float=True)


def _pool_needs(module: IntegerMaxPool, inputs: Types) -> LayerNeeds:
    return LayerNeeds("max_pool", num_axes=len(module.kernel))


def _plain_needs(module: nn.Module, inputs: Types, kind: str) -> LayerNeeds:
    return LayerNeeds(kind, inputs=inputs)


_NEEDS: Mapping[type, Callable[[Any, Types], LayerNeeds]] = {
    **{module: partial(_plain_needs, kind=kind) for module, kind in MODULE_KINDS.items()},
    IntegerHead: _head_needs,
    IntegerMap: _map_needs,
    IntegerMaxPool: _pool_needs,
    IntegerThresholds: _codebook_needs,
    OperatorMap: _float_needs,
}


def _accumulator_reasons(module: Any, target: Target) -> list[str]:
    if not isinstance(module, Accumulating) or module.bound < 2 ** (target.accumulator_bits - 1):
        return []
    return [f"its accumulator can reach {module.bound}, needed {target.accumulator_bits} bits"]


def _weight_type(module: Accumulating) -> IntegerType | None:
    """The narrowest type that holds the trained weights of each channel or their negatives; None without any.

    Lowering gave a channel the sign of its gain, so that the lowest level of a type may have become positive.
    """
    if module.weight is None or not module.operator.has_weight:
        return None
    rows = module.weight.to(torch.int64).flatten(1)
    lowest, highest = rows.amin(1), rows.amax(1)
    magnitude = torch.minimum(torch.maximum(-lowest - 1, highest), torch.maximum(highest - 1, -lowest))
    if int(magnitude.max()) <= 1 and bool((module.weight.abs() == 1).all()):
        return IntegerType(1, signed=True)
    return IntegerType(max(2, int(magnitude.max()).bit_length() + 1), signed=True)


def _num_gains(module: IntegerMap) -> int:
    """How many pairs of multiplier and shift there are."""
    code = module.multiply_shift
    return len(set(zip(code.multiplier.tolist(), code.shift.tolist(), strict=True)))
