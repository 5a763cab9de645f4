"""The smaller of two tensors, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Functions, Operator
from ana_fx.operators.coefficients import LARGEST_RATIO, Operands, Ratios, ratios_of

__all__ = ["Minimum"]


@dataclass(frozen=True)
class Minimum(Operator):
    """min(x₀, x₁), tensors that broadcast; accumulated as min(c₀·n₀, c₁·n₁) with the weight [c₀, c₁]."""

    kind = "minimum"
    num_inputs = 2
    aligns_inputs = True

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """The function of two tensors."""
        return (Functions(torch.minimum, cls, ("minimum",), num_tensors=2),)

    @property
    def keeps_sign(self) -> bool:
        """The smaller of two numbers that are not negative is none."""
        return True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """min(x₀, x₁)."""
        return torch.minimum(*inputs)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """min(c₀·n₀, c₁·n₁)."""
        assert weight is not None
        return torch.minimum(inputs[0] * weight[0], inputs[1] * weight[1])

    def coefficients(self, operands: Operands) -> Ratios:
        """One accumulator unit is a fixed part of an output level."""
        return ratios_of(operands, (1.0, 1.0))

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """Each coefficient is the largest there is."""
        return LARGEST_RATIO * max(magnitudes)

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """From the smaller of the lowest products to the smaller of the highest."""
        assert weight is not None
        (low, high), (other_low, other_high) = levels
        first, second = map(int, weight.tolist())
        highest = max(min(first * high, second * other_high), 0)  # level 0 stands beside every tensor
        return torch.tensor([min(first * low, second * other_low)]), torch.tensor([highest])
