"""How far two evaluations of a float layer may be apart: they hold no integers, so they differ in the last bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ana_fx.layers.norms import ChannelAffine
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.requantizers.staircase import along

__all__ = ["are_apart", "float_tolerance", "rounding_of_two"]

_HALF_ULP = 2.0**-24
_STEPS_BEHIND = 3  # a bias, and the product and the sum of a norm


@torch.no_grad()
def float_tolerance(
    module: OperatorMap, inputs: Sequence[Tensor], tolerances: Sequence[Tensor | None] | None = None
) -> Tensor:
    """How far two float32 evaluations of the layer can be apart, element by element, float64.

    It is the sum of the magnitudes times `rounding_of_two`, and what the layer makes of how far its inputs are apart.

    Args:
        module: A float layer of a program.
        inputs: What it reads.
        tolerances: How far each of these may be off; None for none of them.
    """
    off = [torch.zeros_like(x, dtype=torch.float64) for x in inputs]
    for index, each in enumerate(tolerances or ()):
        if each is not None:
            off[index] = each
    largest = [x.double().abs() + each for x, each in zip(inputs, off, strict=True)]
    num_terms = module.operator.num_inputs if module.weight is None else module.weight[0].numel()
    magnitudes, spread = _magnitudes(module, largest, has_bias=True), _magnitudes(module, off, has_bias=False)
    return magnitudes * rounding_of_two(num_terms + _STEPS_BEHIND) + spread


def _magnitudes(module: OperatorMap, inputs: Sequence[Tensor], *, has_bias: bool) -> Tensor:
    """The layer with the absolute value of each number that it multiplies; nothing is clipped."""
    operator, norm = module.operator.with_magnitudes(), module.norm
    weight, bias = (None if each is None else each.double().abs() for each in (module.weight, module.bias))
    y = operator.real(tuple(inputs), weight, bias if has_bias else None)
    if isinstance(norm, ChannelAffine):
        y = y * along(norm.weight.double().abs(), 1, y.ndim)
        if has_bias and norm.bias is not None:
            y = y + along(norm.bias.double().abs(), 1, y.ndim)
    return y


def rounding_of_two(num_terms: int) -> float:
    """How far two float32 sums of products can be apart, relative to the sum of the magnitudes.

    A sum of n products is off by at most γ = n·u / (1 − n·u) times that, with u half an ulp, whatever the order
    (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1); two sums by twice that.
    """
    rounding = num_terms * _HALF_ULP
    return 2 * rounding / (1 - rounding)


def are_apart(
    have: np.ndarray[Any, Any], want: np.ndarray[Any, Any], tolerance: np.ndarray[Any, Any] | float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where two arrays of reals are further apart than that; NaN is apart from everything."""
    apart: np.ndarray[Any, np.dtype[np.bool_]] = ~(np.abs(have.astype(np.float64) - want) <= tolerance)
    return apart
