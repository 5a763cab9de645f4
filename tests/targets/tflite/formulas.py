"""The arithmetic of TFLite's kernels, written down in NumPy as plainly as can be.

CMSIS-NN is not run here. Its `arm_nn_requantize` (arm_nnsupportfunctions.h) rounds by a remainder and a threshold, its
`arm_requantize_mve` by vector instructions of Helium; both are written down step by step, to be held against Micro's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def float32_rounded(acc: Array, slope: np.float32) -> Array:
    """XNNPACK: a float32 product, rounded to the nearest integer, ties to even."""
    return np.rint(acc.astype(np.float32) * slope).astype(np.int64)


def fixed_point(slope: float) -> tuple[int, int]:
    """The 31-bit multiplier M and the exponent e of slope = M · 2**(e − 31)."""
    fraction, exponent = math.frexp(slope)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    return (multiplier // 2, exponent + 1) if multiplier == 2**31 else (multiplier, exponent)


def first_product(acc: Array, multiplier: int, exponent: int) -> Array:
    """The upper half of twice the product, rounded half up."""
    return (acc.astype(np.int64) * 2 ** max(exponent, 0) * multiplier + 2**30) >> 31


def q31(acc: Array, slope: float) -> Array:
    """TFLite Micro, LiteRT's reference kernels, CMSIS-NN: the product, then a shift that rounds half away from zero."""
    multiplier, exponent = fixed_point(slope)
    return half_away(first_product(acc, multiplier, exponent), max(-exponent, 0))


def q31_half_up(acc: Array, slope: float) -> Array:
    """LiteRT's built-in kernels: the same product, then a shift that rounds half up."""
    multiplier, exponent = fixed_point(slope)
    return half_up(first_product(acc, multiplier, exponent), max(-exponent, 0))


def single_rounding(acc: Array, slope: float) -> Array:
    """The product and the shift at once, rounded half up."""
    multiplier, exponent = fixed_point(slope)
    return half_up(acc.astype(np.int64) * multiplier, 31 - exponent)


def cmsis_nn(acc: Array, slope: float) -> Array:
    """`arm_nn_requantize`: the remainder of a shift down is compared with half, or half and one below zero."""
    multiplier, exponent = fixed_point(slope)
    first, shift = first_product(acc, multiplier, exponent), max(-exponent, 0)
    mask, down = (1 << shift) - 1, first >> shift
    return down + ((first & mask) > (mask >> 1) + (down < 0))


def cmsis_nn_helium(acc: Array, slope: float) -> Array:
    """`arm_requantize_mve`: vqrdmulh, one less where that is negative and shifted, vrshl."""
    multiplier, exponent = fixed_point(slope)
    first = (2 * (acc.astype(np.int64) * 2 ** max(exponent, 0) * multiplier) + 2**31) >> 32
    shift = max(-exponent, 0)
    return half_up(first + ((first & -shift) >> 63), shift)


def cmsis_nn_single(acc: Array, slope: float) -> Array:
    """`arm_nn_requantize` with CMSIS_NN_USE_SINGLE_ROUNDING: all but one bit, then the nearest."""
    multiplier, exponent = fixed_point(slope)
    return (((acc.astype(np.int64) * multiplier) >> (30 - exponent)) + 1) >> 1


def cmsis_nn_helium_single(acc: Array, slope: float) -> Array:
    """`arm_requantize_mve` with it: a shift to the left, vqdmulh, which cuts, and vrshl by one bit or more."""
    multiplier, exponent = fixed_point(slope)
    right = max(-exponent, 1)
    high = (2 * ((acc.astype(np.int64) << (exponent + right)) * multiplier)) >> 32
    return half_up(high, right)


def half_away(x: Array, shift: int) -> Array:
    return np.sign(x) * half_up(np.abs(x), shift)


def half_up(x: Array, shift: int) -> Array:
    return (x + ((1 << shift) >> 1)) >> shift
