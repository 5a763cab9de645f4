"""Accumulators computed exactly, on any device, with floating-point kernels.

A sum of integers is exact in float32 while every partial sum stays below 2**24, and in float64
below 2**53, as long as the kernel only multiplies and adds the given numbers. Winograd and FFT
kernels do not, so float32 is used on x86 processors only, where torch convolves directly; elsewhere
float64 is, for which no such kernels exist.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor

from ana_fx.numerics.integer_type import EXACT_FLOAT32, LARGEST_LEVEL
from ana_fx.operators.base_operator import Operator

__all__ = ["accumulate"]

_DIRECT_CONVOLUTION = platform.machine().lower() in ("x86_64", "amd64")
_DIGIT = 16  # an 8-bit weight is two digits of at most 8 in absolute value


def accumulate(
    operator: Operator, levels: tuple[Tensor, ...], weight: Tensor | None, *, bound: int, integer: torch.dtype
) -> Tensor:
    """The accumulators of `operator`.

    Args:
        operator: The map.
        levels: Integer-valued tensors of any dtype, of at most 8 bits.
        weight: Integer coefficients of any dtype, those of a matrix of at most 8 bits, or None.
        bound: No accumulator exceeds this in absolute value.
        integer: The dtype of the result.
    """
    if not operator.is_exact_in_floats:
        return operator.accumulate(tuple(level.to(torch.int64) for level in levels), weight)
    is_direct = levels[0].device.type == "cpu" and _DIRECT_CONVOLUTION
    if is_direct and bound < EXACT_FLOAT32:
        return _accumulate(operator, levels, weight, torch.float32).to(integer)
    if is_direct and operator.has_weight and weight is not None and _digits_fit(weight):
        whole = weight.float()
        high = (whole / _DIGIT).round_()
        low = torch.sub(whole, high, alpha=_DIGIT)
        high_sum = _accumulate(operator, levels, high, torch.float32).to(integer)
        return high_sum.mul_(_DIGIT).add_(_accumulate(operator, levels, low, torch.float32).to(integer))
    return _accumulate(operator, levels, weight, torch.float64).to(integer)


def _digits_fit(weight: Tensor) -> bool:
    """Whether sums of levels times digits, both of the largest absolute value, stay below 2**24."""
    return weight[0].numel() * (_DIGIT // 2) * LARGEST_LEVEL < EXACT_FLOAT32


def _accumulate(operator: Operator, levels: tuple[Tensor, ...], weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    with torch.autocast(levels[0].device.type, enabled=False):
        return operator.accumulate(
            tuple(level.to(dtype) for level in levels), None if weight is None else weight.to(dtype)
        )
