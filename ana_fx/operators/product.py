"""The product of two tensors, number by number."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Functions, Operator
from ana_fx.operators.coefficients import Coefficients, Operands

__all__ = ["Product"]


@dataclass(frozen=True)
class Product(Operator):
    """x₀ · x₁, tensors that broadcast."""

    kind = "product"
    num_inputs = 2

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """Products of numbers at the same place."""
        others = (operator.imul, torch.mul, torch.multiply, "mul", "mul_")
        return (Functions(operator.mul, cls, others, num_tensors=2, takes_numbers=True),)

    @property
    def keeps_sign(self) -> bool:
        """A product of numbers that are not negative is none."""
        return True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """x₀ · x₁."""
        return inputs[0] * inputs[1]

    def num_terms(self, shape: tuple[int, ...]) -> int:
        """Products in one accumulator."""
        return 1

    def coefficients(self, operands: Operands) -> Coefficients:
        """One unit is the product of both scales."""
        first, second = operands.scales
        return Coefficients(first, second.double().reshape(1), None)

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """All terms are the largest."""
        return self.num_terms(shape) * magnitudes[0] * magnitudes[1]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Each factor is at one of its ends."""
        products = [first * second for first, second in itertools.product(*levels)]
        terms = self.num_terms(shape)
        return torch.tensor([terms * min(products)]), torch.tensor([terms * max(products)])
