"""Convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.operators.base_operator import Operator

__all__ = ["Convolution"]

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Convolution(Operator):
    """Convolution over the last `rank` axes; weight [out, in / groups, *kernel].

    `padding` is (before, after) for each axis, first axis first.
    """

    kind = "convolution"
    has_weight = True
    has_headroom = True
    can_be_logits = True
    has_float_form = True

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Convolution]]:
        """Convolutions with padding by zeros."""
        return dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), cls.of)

    @classmethod
    def of(cls, module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Convolution:
        """That of a module."""
        settings = (tuple(module.dilation), module.groups)
        return cls(tuple(module.stride), tuple(_padding(module)), *settings)

    def padded(self, pads: Sequence[int]) -> Convolution:
        """With zeros around the input too, (before, after) of each axis, the last axis first, as torch has them."""
        padding = list(self.padding)
        for axis in range(len(pads) // 2):
            before, after = padding[self.rank - 1 - axis]
            padding[self.rank - 1 - axis] = (before + pads[2 * axis], after + pads[2 * axis + 1])
        return replace(self, padding=tuple(padding))

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    @property
    def convolution(self) -> Convolution:
        """Itself."""
        return self

    def spread(self, x: Tensor) -> Tensor:
        """`x`: no zeros stand between its numbers."""
        return x

    @property
    def num_spatial_axes(self) -> int:
        """The axes of the kernel."""
        return self.rank

    @property
    def num_groups(self) -> int:
        """The groups of its weight."""
        return self.groups

    @property
    def takes_input_affine(self) -> bool:
        """Whether it pads with no zeros, which no offset would move."""
        return not any(any(pair) for pair in self.padding)

    def num_input_channels(self, weight: Tensor) -> int:
        """The input channels of all groups."""
        return weight.shape[1] * self.groups

    def is_depthwise(self, weight: Tensor) -> bool:
        """Whether there are as many groups as channels, of one each."""
        return self.groups == len(weight) and weight.shape[1] == 1

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, out, *size']."""
        (x,) = inputs
        assert weight is not None
        padding, behind = zip(*self.padding, strict=True)
        if padding != behind or min(padding) < 0:
            x = F.pad(x, [pad for pair in reversed(self.padding) for pad in pair])
            padding = (0,) * self.rank
        convolve: Callable[..., Tensor] = _CONVOLVE[self.rank]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)


def _padding(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, int]]:
    if module.padding == "same":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if module.padding == "valid":
        return [(0, 0)] * len(module.stride)
    return [(int(p), int(p)) for p in module.padding]
