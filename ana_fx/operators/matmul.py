"""The matrix product of two tensors."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.operators.base_operator import Functions
from ana_fx.operators.product import Product

__all__ = ["MatMul"]


@dataclass(frozen=True)
class MatMul(Product):
    """The matrix product x₀ @ x₁ over the last two axes."""

    kind = "matmul"
    takes_batch_norm = False

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """Matrix products of two tensors that are computed."""
        return (Functions(torch.matmul, cls, (operator.matmul, torch.bmm, "matmul", "bmm"), num_tensors=2),)

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[*, M, K] and [*, K, N] to [*, M, N]."""
        return inputs[0] @ inputs[1]

    def num_terms(self, shape: tuple[int, ...]) -> int:
        """The inner size."""
        return shape[-1]
