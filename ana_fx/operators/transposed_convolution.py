"""Transposed convolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution

__all__ = ["TransposedConvolution"]


@dataclass(frozen=True)
class TransposedConvolution(Operator):
    """Transposed convolution over the last `rank` axes; weight [in, out / groups, *kernel].

    On integers it is the convolution of the input with zeros between its numbers; weight [out, in / groups, *kernel].
    """

    kind = "convolution"
    has_weight = True
    has_headroom = True
    has_one_weight_scale = True  # axis 0 of its weight is the input's

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kernel: tuple[int, ...]

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], TransposedConvolution]]:
        """Transposed convolutions."""
        return dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), cls.of)

    @classmethod
    def of(cls, module: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> TransposedConvolution:
        """That of a module."""
        padding = tuple(int(p) for p in module.padding)
        settings = (tuple(module.output_padding), tuple(module.dilation), module.groups, tuple(module.kernel_size))
        return cls(tuple(module.stride), padding, *settings)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    @property
    def num_spatial_axes(self) -> int:
        """The axes of the kernel."""
        return self.rank

    @property
    def convolution(self) -> Convolution:
        """The convolution that follows the zeros; its padding may be negative."""
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        padding = tuple(
            (r - p, r - p + extra - (s - 1))
            for r, p, extra, s in zip(reach, self.padding, self.output_padding, self.stride, strict=True)
        )
        return Convolution((1,) * self.rank, padding, self.dilation, self.groups)

    def spread(self, x: Tensor) -> Tensor:
        """`x` with stride − 1 zeros after each number along each spatial axis."""
        for axis, stride in enumerate(self.stride, start=2):
            if stride > 1:
                after = [0, 0] * (x.ndim - axis - 1) + [0, stride - 1]
                x = F.pad(x.unsqueeze(axis + 1), after).flatten(axis, axis + 1)
        return x

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, out, *size']."""
        (x,) = inputs
        assert weight is not None
        convolve: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.rank - 1]
        return convolve(x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The convolution of the spread input."""
        return self.convolution.real((self.spread(inputs[0]),), weight)

    def integer_weight(self, weight: Tensor) -> Tensor:
        """Turned around, output channels first."""
        grouped = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        turned: Tensor = grouped.flatten(0, 1).flip(tuple(range(2, 2 + self.rank)))
        return turned
