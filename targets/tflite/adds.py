"""ADD in the kernels of TFLite, and whether it gives a sum's trained levels.

XNNPACK     (m · (a − za) + m' · (b − zb) + 2**(S − 1)) >> S, m = rint(scale ratio · 2**S), the larger one of 21 bits
the others  each level times 2**20, times a multiplier of 31 bits; their sum times another; each rounded
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.requantizers.staircase import ScaledStaircase
from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["reference_add", "unproven_add", "xnnpack_add"]

Array = np.ndarray[Any, Any]

_LEFT_SHIFT = 20
_BITS = 31


def unproven_add(w: TfliteWriter) -> str:
    """Say why ADD is not proven to give a sum's levels; "" if it gives the level of every pair of levels."""
    module: IntegerMap = w.module
    staircase = module.staircase
    assert module.weight is not None
    if not isinstance(staircase, ScaledStaircase):
        return "its staircase is one of integer shifts"
    if module.weight.tolist() != [1, 1] or module.sign.tolist() != [1]:
        return "ADD has one factor for both tensors, 1"
    if staircase.bias.numel() > 1 or staircase.weight_scale.numel() > 1 or int(staircase.bias[0]) != 0:
        return "ADD has no bias and no scale for each channel"
    scales = [x.scale for x in w.inputs]
    if scales[0] != scales[1]:
        return "its tensors have two scales"
    sums = np.arange(int(module.lowest.min()), int(module.highest.max()) + 1)
    wanted = numpy(staircase.level(torch.from_numpy(sums), 0)).astype(np.int64)
    for name, add in _kernels(w.target.requantizer).items():
        found = add(sums, scales[0], np.float32(w.levels.scale)).clip(module.lo, module.hi)
        if not np.array_equal(found, wanted):
            return f"{name} rounds {int((found != wanted).sum())} of {len(sums)} sums otherwise"
    return ""


def xnnpack_add(sums: Array, x_scale: np.float32, y_scale: np.float32) -> Array:
    """Compute the levels that XNNPACK makes of sums of levels with one scale, not clipped."""
    ratio = np.float32(x_scale / y_scale)
    shift = _LEFT_SHIFT - (math.frexp(float(ratio))[1] - 1)
    multiplier = int(np.rint(np.ldexp(ratio, shift)))
    return np.asarray((sums.astype(np.int64) * multiplier + (1 << (shift - 1))) >> shift)


def reference_add(sums: Array, x_scale: np.float32, y_scale: np.float32) -> Array:
    """Compute the levels that TFLite Micro, and LiteRT without XNNPACK, make of such sums, not clipped.

    They halve each term before they add.
    """
    largest = 2 * float(x_scale)
    multiplier, exponent = _fixed_point(largest / (float(y_scale) * 2**_LEFT_SHIFT))
    total = sums.astype(np.int64) << (_LEFT_SHIFT - 1)
    first = (total * 2 ** max(exponent, 0) * multiplier + 2 ** (_BITS - 1)) >> _BITS
    shift = max(-exponent, 0)
    return np.asarray(np.sign(first) * ((np.abs(first) + ((1 << shift) >> 1)) >> shift))


def _fixed_point(slope: float) -> tuple[int, int]:
    fraction, exponent = math.frexp(slope)
    multiplier = math.floor(fraction * 2**_BITS + 0.5)
    return (multiplier // 2, exponent + 1) if multiplier == 2**_BITS else (multiplier, exponent)


def _kernels(requantizer: Requantizer) -> dict[str, Any]:
    """The formulas of the kernels that a target names, by what messages call the kernel."""
    if requantizer is Requantizer.XNNPACK:
        return {"XNNPACK's ADD": xnnpack_add}
    if requantizer is Requantizer.Q31:
        return {"TFLite Micro's ADD": reference_add}
    return {"XNNPACK's ADD": xnnpack_add, "TFLite Micro's ADD": reference_add}
