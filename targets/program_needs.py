"""What a program needs of a target, and what of it a target cannot hold."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from ana_fx.graph import location, module_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_modules import (
    IntegerConstant,
    IntegerHead,
    IntegerMap,
    IntegerMaxPool,
    IntegerSoftmax,
    IntegerTable,
)
from ana_fx.program.tensor_spec import integer_type_of
from ana_fx.target import LayerNeeds, Target

__all__ = ["program_misfits"]


def program_misfits(program: GraphModule, target: Target) -> list[str]:
    """Every reason why a target's description cannot hold a program, with its place."""
    misfits = []
    for node in program.graph.nodes:
        module = module_of(node)
        inputs = tuple(each for source in node.all_input_nodes if (each := integer_type_of(source)) is not None)
        needs = _needs(module, inputs)
        if needs is not None:
            misfits += [f"{location(node)}: {reason}" for reason in _reasons(target, needs, module)]
    return misfits


def _reasons(target: Target, needs: LayerNeeds, module: object) -> list[str]:
    reasons = target.refusals(needs)
    if isinstance(module, (IntegerHead, IntegerMap)) and module.bound >= 2 ** (target.accumulator_bits - 1):
        reasons.append(f"its accumulator can reach {module.bound}, needed {target.accumulator_bits} bits")
    return reasons


def _needs(module: object, inputs: tuple[IntegerType, ...]) -> LayerNeeds | None:
    """What a module needs; None for one that every target has."""
    if isinstance(module, (IntegerHead, IntegerMap)):
        operator = module.operator
        return LayerNeeds(
            operator.kind,
            weight=_weight_type(module) if operator.has_weight else None,
            inputs=inputs,
            output=module.integer_type if isinstance(module, IntegerMap) else None,
            num_gains=_num_gains(module) if isinstance(module, IntegerMap) else 1,
            num_axes=getattr(operator, "rank", 0),
        )
    if isinstance(module, IntegerMaxPool):
        return LayerNeeds("max_pool", num_axes=len(module.kernel))
    if isinstance(module, OperatorMap):
        return LayerNeeds(module.operator.kind, leaves_float=True)
    kinds = {IntegerTable: "table", IntegerSoftmax: "softmax", IntegerConstant: "constant", Movement: "movement"}
    return next((LayerNeeds(name, inputs=inputs) for kind, name in kinds.items() if isinstance(module, kind)), None)


def _weight_type(module: IntegerHead | IntegerMap) -> IntegerType | None:
    """The narrowest type that holds the weights of each channel or their negatives.

    Lowering gave a channel the sign of its gain, so that the lowest level of a type may have become positive.
    """
    if module.weight is None:
        return None
    rows = module.weight.to(torch.int64).flatten(1)
    lowest, highest = rows.amin(1), rows.amax(1)
    magnitude = torch.minimum(torch.maximum(-lowest - 1, highest), torch.maximum(highest - 1, -lowest))
    return IntegerType(max(2, int(magnitude.max()).bit_length() + 1), signed=True)


def _num_gains(module: IntegerMap) -> int:
    """How many pairs of multiplier and shift there are."""
    code = module.multiply_shift
    return len(set(zip(code.multiplier.tolist(), code.shift.tolist(), strict=True)))
