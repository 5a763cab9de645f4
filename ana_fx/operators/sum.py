"""The weighted sum of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Coefficients, Operator

__all__ = ["Sum"]

_SUM_DIVISOR = 127  # odd, so that no sum of integers lies half-way between two levels
_LARGEST_COEFFICIENT = 2**12 - 1


@dataclass(frozen=True)
class Sum(Operator):
    """f₀·x₀ + f₁·x₁, tensors that broadcast; accumulated as c₀·n₀ + c₁·n₁ with the weight [c₀, c₁]."""

    kind = "sum"

    factors: tuple[float, float] = (1.0, 1.0)
    num_inputs = 2

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """f₀·x₀ + f₁·x₁."""
        first, second = (x if f == 1 else f * x for x, f in zip(inputs, self.factors, strict=True))
        return first + second

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """c₀·n₀ + c₁·n₁."""
        assert weight is not None
        return inputs[0] * weight[0] + inputs[1] * weight[1]

    def coefficients(
        self,
        weight: Tensor | None,
        weight_scale: Tensor | None,
        scales: tuple[Tensor, ...],
        y_scale: Tensor | None,
        shape: tuple[int, ...],
    ) -> Coefficients:
        """One accumulator unit is a fixed part of an output level."""
        assert y_scale is not None
        ratios = torch.stack(scales).double() / y_scale.double() * _SUM_DIVISOR
        sizes = torch.stack([ratio * abs(f) for ratio, f in zip(ratios, self.factors, strict=True)])
        signs = torch.tensor([-1.0 if f < 0 else 1.0 for f in self.factors], device=sizes.device)
        rounded = torch.round(sizes).clamp(1, _LARGEST_COEFFICIENT).float() * signs
        return Coefficients(y_scale, rounded, torch.ones(1, dtype=torch.float64, device=sizes.device) / _SUM_DIVISOR)

    def bound(self, num_terms: int, weight_magnitude: int, magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """See the base class."""
        return _LARGEST_COEFFICIENT * sum(magnitudes)

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See the base class."""
        assert weight is not None
        ends = [sorted((c * lo, c * hi)) for c, (lo, hi) in zip(map(int, weight.tolist()), levels, strict=True)]
        return torch.tensor([sum(low for low, _ in ends)]), torch.tensor([sum(high for _, high in ends)])
