"""The matrix product with a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear(Operator):
    """Matrix product over the last axis; weight [out, in]."""

    kind = "linear"
    has_weight = True
    has_headroom = True
    can_be_logits = True
    are_logits = True
    has_float_form = True

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Linear]]:
        """Linear layers."""
        return {nn.Linear: lambda _: cls()}

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, *, in] to [N, *, out]."""
        (x,) = inputs
        assert weight is not None
        return F.linear(x, weight, bias)

    @property
    def convolution(self) -> Convolution:
        """The convolution of each row as an image of one number."""
        return Convolution((1,), ((0, 0),), (1,), 1)

    def spread(self, x: Tensor) -> Tensor:
        """`x`: no zeros stand between its numbers."""
        return x

    def channel_axis(self, rank: int) -> int:
        """The last one."""
        return rank - 1
