"""The affine part S of a layer map φ = σ∘S, on reals and on integers alike.

Each class is a frozen description of one map. `real` is the map on reals, `accumulate` its integer
form: a linear map with integer coefficients on levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Affine", "Average", "Convolution", "Identity", "Linear", "Sum"]


class Affine(ABC):
    """A linear map with an optional weight."""

    num_inputs: int = 1
    has_weight: bool = False

    @abstractmethod
    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The map on reals; all tensors of one dtype."""

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The accumulator, from levels and integer coefficients."""
        return self.real(inputs, weight)

    def channel_axis(self, rank: int) -> int:
        """The axis of a result of that rank which carries the channels."""
        return 1

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The map on reals is the accumulator of the same numbers divided by this."""
        return 1


@dataclass(frozen=True)
class Convolution(Affine):
    """Convolution over the last `rank` axes; weight [out, in / groups, *kernel].

    `padding` is (before, after) for each axis, first axis first.
    """

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    has_weight = True

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, out, *size']."""
        (x,) = inputs
        assert weight is not None
        padding = tuple(before for before, _ in self.padding)
        if any(before != after for before, after in self.padding):
            x = F.pad(x, [pad for pair in reversed(self.padding) for pad in pair])
            padding = (0,) * self.rank
        convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Linear(Affine):
    """Matrix product over the last axis; weight [out, in]."""

    has_weight = True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, *, in] to [N, *, out]."""
        (x,) = inputs
        assert weight is not None
        return F.linear(x, weight, bias)

    def channel_axis(self, rank: int) -> int:
        """The last one."""
        return rank - 1


@dataclass(frozen=True)
class Sum(Affine):
    """x₀ + x₁, tensors that broadcast; accumulated as c₀·n₀ + c₁·n₁ with the weight [c₀, c₁]."""

    num_inputs = 2

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """x₀ + x₁."""
        return inputs[0] + inputs[1]

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """c₀·n₀ + c₁·n₁."""
        assert weight is not None
        return inputs[0] * weight[0] + inputs[1] * weight[1]


@dataclass(frozen=True)
class Average(Affine):
    """Average over windows; accumulated as the sum over the window.

    Either `kernel`, `stride` and `padding` (zeros that count) are given, or `output_size` as in
    adaptive pooling with windows of one size.
    """

    rank: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    output_size: tuple[int | None, ...] = ()

    def window(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Kernel, stride and padding for an input of that shape."""
        if self.kernel:
            return self.kernel, self.stride, self.padding
        sizes = shape[-self.rank :]
        outputs = tuple(
            size if output is None else output for size, output in zip(sizes, self.output_size, strict=True)
        )
        if any(size % output for size, output in zip(sizes, outputs, strict=True)):
            raise ValueError(
                f"adaptive average pooling from {sizes} to {outputs} has windows of different sizes; "
                f"needed an output size that divides the input's"
            )
        kernel = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
        return kernel, kernel, (0,) * self.rank

    def fixed(self, shape: tuple[int, ...]) -> Average:
        """The same average for inputs of that shape only, with its window written out."""
        return Average(self.rank, *self.window(shape))

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, C, *size']."""
        (x,) = inputs
        pool: Callable[..., Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[self.rank - 1]
        return pool(x, *self.window(tuple(x.shape)))

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The sum over each window."""
        (x,) = inputs
        kernel, stride, padding = self.window(tuple(x.shape))
        if self.rank == 1:
            pooled = F.avg_pool2d(x.unsqueeze(-1), (*kernel, 1), (*stride, 1), (*padding, 0), divisor_override=1)
            return pooled.squeeze(-1)
        pool: Callable[..., Tensor] = F.avg_pool2d if self.rank == 2 else F.avg_pool3d
        return pool(x, kernel, stride, padding, divisor_override=1)

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The size of the window."""
        return math.prod(self.window(shape)[0])


@dataclass(frozen=True)
class Identity(Affine):
    """Nothing: a batch norm, an activation or a change of scale that stands alone."""

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The input itself."""
        return inputs[0]
