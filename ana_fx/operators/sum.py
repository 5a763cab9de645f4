"""The weighted sum of two tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Functions, Operator
from ana_fx.operators.coefficients import LARGEST_RATIO, Operands, Ratios, largest_part, ratios_of, ratios_of_one_scale

__all__ = ["Sum"]


@dataclass(frozen=True)
class Sum(Operator):
    """f₀·x₀ + f₁·x₁, tensors that broadcast; accumulated as c₀·n₀ + c₁·n₁ with the weight [c₀, c₁].

    `shares_scale` says that both tensors have one scale, so that the weight follows from the factors alone.
    """

    kind = "sum"
    num_inputs = 2
    aligns_inputs = True
    has_float_form = True
    keeps_inputs = False

    factors: tuple[float, float] = (1.0, 1.0)
    shares_scale: bool = False

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """Sums and differences."""
        sums = (operator.iadd, torch.add, "add", "add_")
        differences = (operator.isub, torch.sub, torch.subtract, "sub", "sub_")
        return (
            Functions(operator.add, cls, sums, num_tensors=2, takes_numbers=True),
            Functions(operator.sub, lambda: cls((1.0, -1.0)), differences, num_tensors=2, takes_numbers=True),
        )

    @property
    def largest_coefficient(self) -> int | None:
        """It follows from the factors alone if both tensors have one scale."""
        return largest_part(self.factors) if self.shares_scale else None

    def for_one_scale(self, shares_scale: bool) -> Sum:
        """With one scale its weight follows from the factors, with two from the scales too."""
        return replace(self, shares_scale=shares_scale)

    def with_magnitudes(self) -> Sum:
        """|f₀|·x₀ + |f₁|·x₁."""
        return replace(self, factors=(abs(self.factors[0]), abs(self.factors[1])))

    @property
    def keeps_sign(self) -> bool:
        """A sum does, a difference does not."""
        return min(self.factors) >= 0

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """f₀·x₀ + f₁·x₁."""
        first, second = (x if f == 1 else f * x for x, f in zip(inputs, self.factors, strict=True))
        return first + second

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """c₀·n₀ + c₁·n₁."""
        assert weight is not None
        return inputs[0] * weight[0] + inputs[1] * weight[1]

    def coefficients(self, operands: Operands) -> Ratios:
        """One accumulator unit is a fixed part of an output level, or of an input level if the inputs share a scale."""
        return ratios_of_one_scale(operands, self.factors) if self.shares_scale else ratios_of(operands, self.factors)

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """Each coefficient is the largest there is."""
        return LARGEST_RATIO * sum(magnitudes)

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Each term is at one of its ends."""
        assert weight is not None
        ends = [sorted((c * lo, c * hi)) for c, (lo, hi) in zip(map(int, weight.tolist()), levels, strict=True)]
        return torch.tensor([sum(low for low, _ in ends)]), torch.tensor([sum(high for _, high in ends)])
