"""The product of two tensors, number by number."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Coefficients, Operator

__all__ = ["Product"]


@dataclass(frozen=True)
class Product(Operator):
    """x₀ · x₁, tensors that broadcast."""

    kind = "product"
    num_inputs = 2

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """x₀ · x₁."""
        return inputs[0] * inputs[1]

    def num_terms(self, shape: tuple[int, ...]) -> int:
        """Products in one accumulator."""
        return 1

    def coefficients(
        self,
        weight: Tensor | None,
        weight_scale: Tensor | None,
        scales: tuple[Tensor, ...],
        y_scale: Tensor | None,
        shape: tuple[int, ...],
    ) -> Coefficients:
        """One unit is the product of both scales."""
        return Coefficients(scales[0], None, scales[1].double().reshape(1))

    def bound(self, num_terms: int, weight_magnitude: int, magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """See the base class."""
        return self.num_terms(shape) * magnitudes[0] * magnitudes[1]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See the base class."""
        products = [first * second for first, second in itertools.product(*levels)]
        terms = self.num_terms(shape)
        return torch.tensor([terms * min(products)]), torch.tensor([terms * max(products)])
