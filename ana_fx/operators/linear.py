"""The matrix product with a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ana_fx.operators.base_operator import Operator

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(Operator):
    """Matrix product over the last axis; weight [out, in]."""

    kind = "linear"
    has_weight = True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, *, in] to [N, *, out]."""
        (x,) = inputs
        assert weight is not None
        return F.linear(x, weight, bias)

    def channel_axis(self, rank: int) -> int:
        """The last one."""
        return rank - 1
