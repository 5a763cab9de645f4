"""The matrix product of two tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ana_fx.operators.product import Product

__all__ = ["MatMul"]


@dataclass(frozen=True)
class MatMul(Product):
    """The matrix product x₀ @ x₁ over the last two axes."""

    kind = "matmul"

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[*, M, K] and [*, K, N] to [*, M, N]."""
        return inputs[0] @ inputs[1]

    def num_terms(self, shape: tuple[int, ...]) -> int:
        """The inner size."""
        return shape[-1]
