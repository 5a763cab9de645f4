"""What of a program cannot be written although a target's description can hold it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ana_fx.graph import location, module_of
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Concat
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.tensor_spec import sample_shape_of, spec_of
from ana_fx.requantizers.agreed_staircase import agreed_channels
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.target import Target
from ana_fx.targets.channels_last.layout_limits import (
    average_reasons,
    convolution_reasons,
    layout_reasons,
    mean_reasons,
)
from ana_fx.targets.tflite.muls import mul_scale
from ana_fx.targets.tflite.write_lookups import LARGEST_TABLE

__all__ = ["misfits_of"]

_BYTE = 127
_LONGEST = 2**31 - 1
_SHOWN = 5


def misfits_of(program: GraphModule, node: Node, target: Target) -> list[str]:
    """Say why a node cannot be written, a reason for each, with its place."""
    module = module_of(node)
    reasons = layout_reasons(node)
    if isinstance(module, IntegerMap):
        reasons += (
            _table_reasons(node, module, target) if _can_be_table(node, module) else _map_reasons(node, module, target)
        )
    elif isinstance(module, IntegerMaxPool) and set(module.dilation) != {1}:
        reasons.append(f"its max pool has dilation {module.dilation}, needed 1")
    elif isinstance(module, Concat) and len({spec_of(each).layout.batch_axis for each in node.all_input_nodes}) > 1:
        reasons.append("it joins a constant, needed tensors that depend on the input")
    return [f"{location(node)}: {reason}" for reason in reasons]


def _map_reasons(node: Node, module: IntegerMap, target: Target) -> list[str]:
    limit = _LIMITS.get(type(module.operator))
    return [*_staircase_reasons(module, target), *(limit(node, module) if limit else [])]


def _staircase_reasons(module: IntegerMap, target: Target) -> list[str]:
    """A formula that is the target's, and one that all its kernels compute."""
    staircase, wanted = module.staircase, target.requantizer
    if isinstance(staircase, FixedPointStaircase):
        if staircase.rounding != wanted.value:
            return [f"its staircase is one of {staircase.rounding!r}, needed {wanted.value!r}"]
        return _shift_reasons(module, staircase)
    if not isinstance(staircase, QLinearStaircase):
        return [f"its staircase is one of integer shifts, needed {wanted.value!r}"]
    if wanted not in (Requantizer.XNNPACK, Requantizer.EVERY_TFLITE):
        return [f"its staircase is that of float32 kernels, needed {wanted.value!r}"]
    if float(staircase.stored_slope.max()) >= 256:
        return [f"a channel has {float(staircase.stored_slope.max()):g} levels for each accumulator unit, needed < 256"]
    return _agreement_reasons(module, staircase) if wanted is Requantizer.EVERY_TFLITE else []


def _agreement_reasons(module: IntegerMap, staircase: QLinearStaircase) -> list[str]:
    low, high = module.signed_range()
    agrees = agreed_channels(staircase, low, high)
    if bool(agrees.all()):
        return []
    channels = (~agrees).nonzero().flatten().tolist()
    shown = ", ".join(map(str, channels[:_SHOWN])) + (", …" if len(channels) > _SHOWN else "")
    return [
        f"kernels round {len(channels)} of {len(agrees)} channels ({shown}) differently, needed none; give its output "
        f"or its weight fewer bits, or prepare for the kernels that you have: target='litert' or 'tflite-micro'"
    ]


def _shift_reasons(module: IntegerMap, staircase: FixedPointStaircase) -> list[str]:
    """Kernels shift accumulators to the left, in 32 bits, where slopes are above 1."""
    _, exponent = staircase.fixed_point()
    size = torch.maximum(module.lowest.abs(), module.highest.abs()) * staircase.factor + staircase.bias.long().abs()
    largest = int((size << exponent.clamp_min(0)).max())
    return [] if largest <= _LONGEST else [f"its accumulator can reach {largest} shifted, needed at most {_LONGEST}"]


def _sum_reasons(node: Node, module: IntegerMap) -> list[str]:
    assert module.weight is not None
    largest = int(module.weight.abs().max()) * getattr(module.staircase, "factor", 1)
    return [] if largest <= _BYTE else [f"its tensors have factors up to {largest}, needed at most {_BYTE}"]


def _can_be_table(node: Node, module: IntegerMap) -> bool:
    """Whether what kernels do not compute is written as a table from accumulators to levels."""
    if isinstance(module.operator, Sum):
        return len(set(map(sample_shape_of, node.all_input_nodes))) > 1
    return isinstance(module.operator, (Maximum, Minimum, Product))


def _table_reasons(node: Node, module: IntegerMap, target: Target) -> list[str]:
    size = len(module.sign) * (int(module.highest.max()) - int(module.lowest.min()) + 1)
    if size <= LARGEST_TABLE or (isinstance(module.operator, Product) and _is_mul(node, module, target)):
        return []
    return [
        f"it needs a table of {size} levels, one for each channel and accumulator, needed at most {LARGEST_TABLE}; "
        f"leave out the batch norm behind it, or give its tensors fewer bits"
    ]


def _is_mul(node: Node, module: IntegerMap, target: Target) -> bool:
    levels = [spec_of(each).levels for each in node.args if isinstance(each, Node)]
    first, second = (np.float32(each.scale) for each in levels if each is not None)
    return mul_scale(module, (first, second), target.requantizer) is not None


_LIMITS: Mapping[type, Callable[[Node, Any], list[str]]] = {
    Average: average_reasons,
    Convolution: convolution_reasons,
    Reduce: mean_reasons,
    Sum: _sum_reasons,
}
