"""How far two evaluations of a float layer may be apart: they hold no integers, so they differ in the last bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ana_fx.layers.operator_map import OperatorMap

__all__ = ["are_apart", "float_tolerance", "rounding_of_two"]

_HALF_ULP = 2.0**-24


@torch.no_grad()
def float_tolerance(module: OperatorMap, inputs: Sequence[Tensor]) -> Tensor:
    """How far two float32 evaluations of the layer can be apart, element by element, float64.

    It is the sum of the magnitudes times `rounding_of_two`.
    """
    assert module.weight is not None
    num_terms = module.weight[0].numel() + 1
    magnitudes = module.operator.real(
        tuple(x.double().abs() for x in inputs),
        module.weight.double().abs(),
        None if module.bias is None else module.bias.double().abs(),
    )
    return magnitudes * rounding_of_two(num_terms)


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
