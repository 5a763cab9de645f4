"""The map S of a layer map φ = σ∘S, on reals and on integers alike: those with one input.

Each class is a frozen description of one map. `real` is the map on reals, `accumulate` its integer
form: a map with integer coefficients on levels, whose results are called accumulators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ana_fx.numerics.integer_type import EXACT_FLOAT32, LARGEST_WEIGHT

__all__ = ["Affine", "Coefficients", "Convolution", "Identity", "Linear", "Reduce", "TransposedConvolution"]


@dataclass(frozen=True)
class Coefficients:
    """The integers of a map, and what one unit of its accumulator stands for: x_scale · unit.

    Args:
        x_scale: Scale of the input, float32, 0-dimensional.
        weight: Integer coefficients, or None if there are none.
        unit: Float64, [channels] or [1].
    """

    x_scale: Tensor
    weight: Tensor | None
    unit: Tensor


class Affine(ABC):
    """A map on tensors with an optional weight."""

    num_inputs: int = 1
    has_weight: bool = False
    is_exact_in_floats: bool = True

    @abstractmethod
    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The map on reals; all tensors of one dtype."""

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The accumulator, from levels and integer coefficients."""
        return self.real(inputs, weight)

    def channel_axis(self, rank: int) -> int:
        """The axis of a result of that rank which carries the channels."""
        return 1

    def fixed(self, shape: tuple[int, ...]) -> Affine:
        """The same map for first inputs of that shape only."""
        return self

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The map on reals is the accumulator of the same numbers divided by this."""
        return 1

    def is_depthwise(self, weight: Tensor) -> bool:
        """Whether each output channel has one input channel, and the other way round."""
        return False

    def integer_weight(self, weight: Tensor) -> Tensor:
        """The levels of the weight as `accumulate` takes them, output channels first."""
        return weight

    def coefficients(
        self,
        weight: Tensor | None,
        weight_scale: Tensor | None,
        scales: tuple[Tensor, ...],
        y_scale: Tensor | None,
        shape: tuple[int, ...],
    ) -> Coefficients:
        """What the map computes with on integers.

        Args:
            weight: Levels of the weight, or None.
            weight_scale: Its scale, float64, [channels] or [1].
            scales: Scale of each input, float32.
            y_scale: Scale of the output, if it has one.
            shape: Shape of the first input.
        """
        if weight is None or weight_scale is None:
            unit = torch.ones(1, dtype=torch.float64, device=scales[0].device) / self.divisor(shape)
            return Coefficients(scales[0], None, unit)
        return Coefficients(scales[0], self.integer_weight(weight), weight_scale)

    def bound(self, num_terms: int, weight_magnitude: int, magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """No accumulator exceeds this in absolute value.

        Args:
            num_terms: Products in one accumulator, of a map with a weight.
            weight_magnitude: Largest absolute value of a coefficient, likewise.
            magnitudes: Largest absolute value of each input's levels.
            shape: Shape of the first input.
        """
        if self.has_weight:
            return num_terms * weight_magnitude * magnitudes[0]
        return self.divisor(shape) * magnitudes[0]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """The smallest and largest accumulator of each channel, int64, [channels] or [1].

        Every input can be level 0, so these bound the partial sums too.

        Args:
            weight: The integer coefficients, of at most 8 bits.
            levels: Lowest and highest level of each input.
            shape: Shape of the first input.
        """
        lo, hi = levels[0]
        if weight is None:
            terms = self.divisor(shape)
            return torch.tensor([terms * lo]), torch.tensor([terms * hi])
        rows = weight.flatten(1)
        is_small = rows.shape[1] * LARGEST_WEIGHT <= EXACT_FLOAT32  # float sums are exact, and much faster than int64
        rows = rows.to(torch.float32 if is_small else torch.float64)
        positive_sum, total = rows.clamp_min(0).sum(1).to(torch.int64), rows.sum(1).to(torch.int64)
        negative_sum = total - positive_sum
        return positive_sum * lo + negative_sum * hi, positive_sum * hi + negative_sum * lo


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


@dataclass(frozen=True)
class TransposedConvolution(Affine):
    """Transposed convolution over the last `rank` axes; weight [in, out / groups, *kernel].

    On integers it is the convolution of the input with zeros between its numbers; weight [out, in / groups, *kernel].
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    kernel: tuple[int, ...]
    has_weight = True

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

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
class Reduce(Affine):
    """Sum or average over axes, none of them the first; accumulated as the sum."""

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


@dataclass(frozen=True)
class Identity(Affine):
    """Nothing: a batch norm, an activation or a change of scale that stands alone."""

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The input itself."""
        return inputs[0]
