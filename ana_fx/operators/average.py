"""Average pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.operators.resampling import Resampling, of_each_axis

__all__ = ["Average"]


@dataclass(frozen=True)
class Average(Resampling):
    """Average over windows; accumulated as the sum over the window, times what makes all windows count alike.

    Either `kernel`, `stride` and `padding` are given, or `output_size` as in adaptive pooling.
    """

    kind = "average"
    has_headroom = True

    rank: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    output_size: tuple[int | None, ...] = ()

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Average]]:
        """Average pools over windows of one size, and adaptive ones."""
        fixed = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
        adaptive = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
        return {kind: partial(cls.of, rank) for rank, kind in enumerate(fixed, start=1)} | {
            kind: partial(cls.of_adaptive, rank) for rank, kind in enumerate(adaptive, start=1)
        }

    @classmethod
    def of(cls, rank: int, module: Any) -> Average:
        """That of a pool with windows of one size."""
        kernel, stride, padding = (
            of_each_axis(each, rank) for each in (module.kernel_size, module.stride, module.padding)
        )
        override = getattr(module, "divisor_override", None)
        return cls(rank, kernel, stride, padding, module.ceil_mode, module.count_include_pad, override)

    @classmethod
    def of_adaptive(cls, rank: int, module: Any) -> Average:
        """That of a pool with an output of one size."""
        return cls(rank, output_size=of_each_axis(module.output_size, rank))

    def window(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """Kernel, stride and padding for an input of that shape, or None if its windows are not of one size."""
        sizes = shape[-self.rank :]
        if not self.kernel:
            outputs = self._outputs(sizes)
            if any(size % output for size, output in zip(sizes, outputs, strict=True)):
                return None
            kernel = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
            return kernel, kernel, (0,) * self.rank
        is_even = self.divisor_override is not None or self.count_include_pad or not any(self.padding)
        overhang = any(
            self.ceil_mode and (size + 2 * p - k) % s
            for size, k, s, p in zip(sizes, self.kernel, self.stride, self.padding, strict=True)
        )
        return None if overhang or not is_even else (self.kernel, self.stride, self.padding)

    def _outputs(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size if output is None else output for size, output in zip(sizes, self.output_size, strict=True))

    def fixed(self, shape: tuple[int, ...]) -> Average:
        """With the window written out, if there is one."""
        window = self.window(shape)
        if window is None:
            return self
        return replace(
            self, kernel=window[0], stride=window[1], padding=window[2], ceil_mode=False, count_include_pad=True,
            output_size=(),
        )  # fmt: skip

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, C, *size']."""
        (x,) = inputs
        if not self.kernel:
            adaptive: Callable[..., Tensor] = (
                F.adaptive_avg_pool1d,
                F.adaptive_avg_pool2d,
                F.adaptive_avg_pool3d,
            )[self.rank - 1]
            return adaptive(x, self._outputs(tuple(x.shape[-self.rank :])))
        settings = (self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        if self.rank == 1:
            return F.avg_pool1d(x, *settings)
        pool: Callable[..., Tensor] = F.avg_pool2d if self.rank == 2 else F.avg_pool3d
        return pool(x, *settings, self.divisor_override)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The sum over each window."""
        (x,) = inputs
        window = self.window(tuple(x.shape))
        if window is None:
            return super().accumulate(inputs, weight)
        kernel, stride, padding = window
        if self.rank == 1:
            pooled = F.avg_pool2d(x.unsqueeze(-1), (*kernel, 1), (*stride, 1), (*padding, 0), divisor_override=1)
            return pooled.squeeze(-1)
        pool: Callable[..., Tensor] = F.avg_pool2d if self.rank == 2 else F.avg_pool3d
        return pool(x, kernel, stride, padding, divisor_override=1)

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The size of the window; of windows that differ, the least common multiple of their sizes, axis by axis."""
        if self.divisor_override is not None:
            return self.divisor_override
        window = self.window(shape)
        if window is not None:
            return math.prod(window[0])
        return math.prod(math.lcm(*counts) for _, counts in self._windows(shape))

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """All terms are the largest; a divisor that is given says nothing about their number."""
        return self._largest_sum(shape) * magnitudes[0]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """All terms are the smallest, or the largest."""
        lo, hi = levels[0]
        largest = self._largest_sum(shape)
        return torch.tensor([largest * lo]), torch.tensor([largest * hi])

    def _largest_sum(self, shape: tuple[int, ...]) -> int:
        """What the coefficients of one sum add up to at most."""
        return self.divisor(shape) if self.divisor_override is None else math.prod(self.kernel)

    def matrices(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """A row for each window: how often each number counts."""
        matrices = []
        for size, (windows, counts) in zip(shape[-self.rank :], self._windows(shape), strict=True):
            multiple = math.lcm(*counts) if self.divisor_override is None else 1
            position = torch.arange(size)
            rows = [
                ((position >= start) & (position < stop)).long()
                * (multiple // count if self.divisor_override is None else 1)
                for (start, stop), count in zip(windows, counts, strict=True)
            ]
            matrices.append(torch.stack(rows))
        return tuple(matrices)

    def _windows(self, shape: tuple[int, ...]) -> list[tuple[list[tuple[int, int]], list[int]]]:
        """For each axis the (start, stop) of its windows, and by how many numbers each divides."""
        sizes = shape[-self.rank :]
        if not self.kernel:
            adaptive = []
            for size, num in zip(sizes, self._outputs(sizes), strict=True):
                windows = [(i * size // num, -(-(i + 1) * size // num)) for i in range(num)]
                adaptive.append((windows, [stop - start for start, stop in windows]))
            return adaptive
        return [self._axis_windows(*each) for each in zip(sizes, self.kernel, self.stride, self.padding, strict=True)]

    def _axis_windows(self, size: int, k: int, s: int, p: int) -> tuple[list[tuple[int, int]], list[int]]:
        num = -(-(size + 2 * p - k) // s) + 1 if self.ceil_mode else (size + 2 * p - k) // s + 1
        if self.ceil_mode and (num - 1) * s >= size + p:  # as in torch: no window starts in the padding behind
            num -= 1
        starts = [i * s - p for i in range(num)]
        windows = [(max(start, 0), min(start + k, size)) for start in starts]
        if self.count_include_pad:
            return windows, [min(start + k, size + p) - start for start in starts]
        return windows, [stop - start for start, stop in windows]
