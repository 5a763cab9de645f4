"""What of a program cannot be written although a target's description can hold it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
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
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.tensor_spec import sample_shape_of, spec_of
from ana_fx.requantizers.agreed_staircase import agreed_channels
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import QLinearStaircase
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
from ana_fx.targets.tflite.muls import mul_scale
from ana_fx.targets.tflite.write_lookups import LARGEST_TABLE

__all__ = ["LIMITS"]

_BYTE = 127
_LONGEST = 2**31 - 1
_SHOWN = 5


def _staircase_reasons(node: Node, operator: Operator, target: Target) -> list[str]:
    """Refuse a formula that is not the target's, and one that not all its kernels compute."""
    module = map_of(node)
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
    """Refuse accumulators that leave 32 bits where slopes are above 1, since kernels shift them to the left first."""
    _, exponent = staircase.fixed_point()
    size = torch.maximum(module.lowest.abs(), module.highest.abs()) * staircase.factor + staircase.bias.long().abs()
    largest = int((size << exponent.clamp_min(0)).max())
    return [] if largest <= _LONGEST else [f"its accumulator can reach {largest} shifted, needed at most {_LONGEST}"]


def _with_staircase(limit: Limit) -> Limit:
    """Refuse what a limit refuses, and staircases that kernels do not have."""
    return lambda node, operator, target: [*_staircase_reasons(node, operator, target), *limit(node, operator, target)]


def _sum_reasons(node: Node, operator: Sum, target: Target) -> list[str]:
    """Refuse factors of more than a byte; tensors that broadcast are added by no kernel, and become a table."""
    if len(set(map(sample_shape_of, node.all_input_nodes))) > 1:
        return _table_reasons(node, operator, target)
    module, reasons = map_of(node), _staircase_reasons(node, operator, target)
    assert module.weight is not None
    largest = int(module.weight.abs().max()) * getattr(module.staircase, "factor", 1)
    if largest <= _BYTE:
        return reasons
    return [*reasons, f"its tensors have factors up to {largest}, needed at most {_BYTE}"]


def _product_reasons(node: Node, operator: Product, target: Target) -> list[str]:
    """Refuse what would become a table that is too large, unless one operator multiplies."""
    reasons = _table_reasons(node, operator, target)
    return [] if not reasons or _is_mul(node, target) else reasons


def _table_reasons(node: Node, operator: Operator, target: Target) -> list[str]:
    """Refuse more levels than a table from accumulators to levels may have."""
    module = map_of(node)
    size = len(module.sign) * (int(module.highest.max()) - int(module.lowest.min()) + 1)
    if size <= LARGEST_TABLE:
        return []
    return [
        f"it needs a table of {size} levels, one for each channel and accumulator, needed at most {LARGEST_TABLE}; "
        f"leave out the batch norm behind it, or give its tensors fewer bits"
    ]


def _is_mul(node: Node, target: Target) -> bool:
    """Whether all kernels of the target give the levels of a product by one operator, without a table."""
    levels = [spec_of(each).levels for each in node.args if isinstance(each, Node)]
    first, second = (np.float32(each.scale) for each in levels if each is not None)
    return mul_scale(map_of(node), (first, second), target.requantizer) is not None


LIMITS: Mapping[type, Limit] = {
    Average: _with_staircase(average_reasons),
    Concat: concat_reasons,
    Convolution: _with_staircase(convolution_reasons),
    IntegerMaxPool: pool_reasons,
    Product: _product_reasons,
    Reduce: _with_staircase(mean_reasons),
    Sum: _sum_reasons,
    **dict.fromkeys((Identity, Linear), _staircase_reasons),
    **dict.fromkeys((IntegerSoftmax, IntegerTable, Pad, Permute, Reshape, Slice, Take), no_reasons),
    **dict.fromkeys((Maximum, Minimum), _table_reasons),
}
"""The limit of every operator and module that the dialect of TFLite has a writer for."""
