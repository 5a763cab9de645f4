"""Convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ana_fx.operators.base_operator import Operator

__all__ = ["Convolution"]


@dataclass(frozen=True)
class Convolution(Operator):
    """Convolution over the last `rank` axes; weight [out, in / groups, *kernel].

    `padding` is (before, after) for each axis, first axis first.
    """

    kind = "convolution"

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    has_weight = True

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    def is_depthwise(self, weight: Tensor) -> bool:
        """See the base class; weight [out, in / groups, *kernel]."""
        return self.groups == len(weight) and weight.shape[1] == 1

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, out, *size']."""
        (x,) = inputs
        assert weight is not None
        padding = tuple(before for before, _ in self.padding)
        if any(before != after or before < 0 for before, after in self.padding):
            x = F.pad(x, [pad for pair in reversed(self.padding) for pad in pair])
            padding = (0,) * self.rank
        convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)
