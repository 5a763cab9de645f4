"""Sums and averages over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Functions, Operator
from ana_fx.requantizers.requantizer import Requantizer

__all__ = ["Reduce"]


@dataclass(frozen=True)
class Reduce(Operator):
    """Sum or average over axes, none of them the first; accumulated as the sum."""

    kind = "reduce"
    requantizers = frozenset(Requantizer) - {Requantizer.QLINEAR}  # no QLinear operator computes it
    has_headroom = True
    takes_batch_norm = False

    axes: tuple[int, ...]
    keepdim: bool
    is_mean: bool

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """Means and sums over axes that are constants."""
        mean = Functions(torch.mean, lambda axes, keepdim: cls(axes, keepdim, is_mean=True))
        return mean, Functions(torch.sum, lambda axes, keepdim: cls(axes, keepdim, is_mean=False))

    @property
    def keeps_sign(self) -> bool:
        """A sum of numbers that are not negative is none."""
        return True

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

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """All terms are the largest."""
        return self.num_terms(shape) * magnitudes[0]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """All terms are the smallest, or the largest."""
        terms = self.num_terms(shape)
        return torch.tensor([terms * levels[0][0]]), torch.tensor([terms * levels[0][1]])
