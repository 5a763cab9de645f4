"""Why a QLinear operator is not proven to compute a layer map's staircase, or that it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.staircase import QLinearStaircase
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor

__all__ = [
    "add_scales",
    "has_qlinear_staircase",
    "qlinear_staircase",
    "unproven_add",
    "unproven_mul",
    "unproven_product",
]

_BYTE = 255
_FLOAT32_HALF_ULP = 2.0**-24


def has_qlinear_staircase(module: IntegerMap) -> bool:
    """Whether a layer map was trained with the formula of QLinear operators."""
    return isinstance(module.staircase, QLinearStaircase)


def qlinear_staircase(module: IntegerMap) -> QLinearStaircase:
    """The trained formula of a layer map, which is that of QLinear operators."""
    assert isinstance(module.staircase, QLinearStaircase)
    return module.staircase


def add_scales(module: IntegerMap) -> list[float]:
    """Input scales of a QLinearAdd whose ratios to the output's are the integer coefficients' slopes."""
    assert module.weight is not None
    staircase = qlinear_staircase(module)
    unit = float(staircase.slope) * float(staircase.y_scale)
    return [coefficient * unit for coefficient in module.weight.tolist()]


def unproven_add(w: NodeWriter) -> str:
    """Why QLinearAdd is not proven equal to a sum's staircase; empty if it is.

    The kernel computes a·(sa/sc) + b·(sb/sc) + zero points in float32, fused or not, in an order that
    depends on the processor. Whatever the order, at most ten roundings of half an ulp each act on the
    magnitudes that are summed. If no reachable sum is that near a tie, all orders give one result.
    """
    module: IntegerMap = w.module
    staircase = qlinear_staircase(module)
    assert module.weight is not None
    if int(module.weight.min()) < 0:
        return "QLinearAdd does not subtract"
    if staircase.bias.numel() > 1 or module.sign.numel() > 1 or int(module.sign[0]) != 1:
        return "QLinearAdd has no scale for each channel"
    if int(staircase.bias) != 0:
        return "QLinearAdd has no bias"
    nearest, error = _nearest_tie(w.inputs, module)
    if nearest <= error:
        return f"QLinearAdd can round a sum {nearest:.2g} levels from a tie otherwise (error up to {error:.2g})"
    return ""


def _nearest_tie(inputs: Sequence[StoredTensor], module: IntegerMap) -> tuple[float, float]:
    """How far from a tie the nearest reachable sum is, in levels, and how far float32 can be off."""
    staircase = qlinear_staircase(module)
    ratios = [scale / float(staircase.y_scale) for scale in add_scales(module)]
    magnitude = sum((_BYTE + x.zero_point) * ratio for x, ratio in zip(inputs, ratios, strict=True)) + 2 * _BYTE
    error = 10 * _FLOAT32_HALF_ULP * magnitude
    accumulators = torch.arange(int(module.lowest), int(module.highest) + 1).double()
    exact = accumulators * float(staircase.slope)
    is_inside = (exact > module.lo - 1) & (exact < module.hi + 1)
    distance = (exact - torch.floor(exact) - 0.5).abs()
    return float(torch.where(is_inside, distance, torch.ones_like(distance)).min()), error


def unproven_product(w: NodeWriter) -> str:
    """Why the formula of QLinearMatMul is not a product's staircase; empty if it is."""
    module: IntegerMap = w.module
    if not has_qlinear_staircase(module):
        return "its staircase is one of integer shifts"
    if (
        qlinear_staircase(module).bias.numel() > 1
        or int(qlinear_staircase(module).bias) != 0
        or int(module.sign[0]) != 1
    ):
        return "a QLinear product has no bias and no sign"
    return ""


def unproven_mul(w: NodeWriter) -> str:
    """Why QLinearMul does not give a product's staircase; empty if it does.

    The kernel adds the zero point before it rounds, fused with the multiplication or not: both are
    computed for every accumulator.
    """
    reason = unproven_product(w)
    if reason:
        return reason
    module: IntegerMap = w.module
    staircase, zero_point = qlinear_staircase(module), w.container.zero_point
    accumulators = torch.arange(int(module.lowest), int(module.highest) + 1)
    wanted = staircase.level(accumulators, 0)
    slope = staircase.stored_slope.reshape(())
    unfused = accumulators.float() * slope + zero_point
    fused = (accumulators.double() * slope.double() + zero_point).float()
    for stored in (unfused, fused):
        found = (torch.round(stored).clamp(0, _BYTE) - zero_point).clamp(module.lo, module.hi)
        if not torch.equal(found, wanted):
            return f"QLinearMul rounds {int((found != wanted).sum())} of {len(wanted)} products otherwise"
    return ""
