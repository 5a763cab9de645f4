"""Sums and averages over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Operator

__all__ = ["Reduce"]


@dataclass(frozen=True)
class Reduce(Operator):
    """Sum or average over axes, none of them the first; accumulated as the sum."""

    kind = "reduce"

    axes: tuple[int, ...]
    keepdim: bool
    is_mean: bool

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The input without those axes, or with axes of size 1 in their place."""
        (x,) = inputs
        return x.mean(self.axes, self.keepdim) if self.is_mean else x.sum(self.axes, self.keepdim)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The sum."""
        return inputs[0].sum(self.axes, self.keepdim)

    def num_terms(self, shape: tuple[int, ...]) -> int:
        """Numbers in one sum."""
        return int(torch.Size([shape[axis] for axis in self.axes]).numel())

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The number of terms of an average."""
        return self.num_terms(shape) if self.is_mean else 1

    def bound(self, num_terms: int, weight_magnitude: int, magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """See the base class."""
        return self.num_terms(shape) * magnitudes[0]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """See the base class."""
        terms = self.num_terms(shape)
        return torch.tensor([terms * levels[0][0]]), torch.tensor([terms * levels[0][1]])
