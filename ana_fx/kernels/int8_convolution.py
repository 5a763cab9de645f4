"""Convolutions of int8 levels by one kernel, and what else is a convolution (see `ana_fx.kernels.exact_products`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.int8_levels import WIDE, Finish, is_channels_last, is_dense, write_levels
from ana_fx.kernels.triton_launch import launch
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.operators.transposed_convolution import TransposedConvolution

__all__ = ["Convolvable", "Int8Convolution"]

Convolvable = Convolution | TransposedConvolution | Linear
_FEW_CHANNELS = 16  # with fewer, a block of products takes channels of several taps


class Int8Convolution:
    """A convolution, transposed convolution or linear map of levels.

    Args:
        operator: The map.
        weight: Integer coefficients.
        shift: What is taken from the levels so that they fit int8.
        finish: The staircase, if there is one.
    """

    def __init__(self, operator: Convolvable, weight: Tensor, shift: int, finish: Finish | None = None) -> None:
        self.finish = finish
        self._operator = operator
        self._shift = shift
        whole = weight if operator.num_spatial_axes else weight.unsqueeze(-1)
        self._weight = whole.to(torch.int8).flatten(2).transpose(1, 2).contiguous()  # [out, taps, in]
        self._correction = self._weight.sum((1, 2), dtype=torch.int32).mul_(shift)
        self._kernel_size = tuple(whole.shape[2:])
        unused = (self._correction, self._correction, self._correction)
        self._finish = unused if finish is None else (finish.slope, finish.bias, finish.ends)
        self._plans: dict[Any, _Plan] = {}

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Any tensors."""
        return True

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of reals, multiples of their scale: int32 accumulators, or what the staircase makes of them, real."""
        (x,), (scale,), operator = tensors, scales, self._operator
        x = operator.spread(x)
        if not is_dense(x):
            x = x.contiguous()
        key = (x.shape, x.stride(), x.dtype)
        plan = self._plans.get(key)
        if plan is None:
            self._plans.clear()  # of other batch sizes
            plan = self._plans[key] = self._plan(x)
        levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        write_levels(x, scale, levels, self._shift, is_moved=plan.moves_channels)
        out = torch.empty(plan.shape, dtype=plan.dtype, device=x.device, memory_format=plan.layout)
        launch(
            plan.kernel,
            plan.grid,
            (levels, self._weight, self._correction, out, *self._finish),
            plan.numbers,
            plan.constants,
            plan.key,
            enable_fp_fusion=False,
            **plan.options,
        )
        return out

    def _plan(self, x: Tensor) -> _Plan:
        from ana_fx.kernels import triton_products as kernels

        convolution, samples, sizes = self._as_convolution(x)
        total_out, taps, in_channels = self._weight.shape
        size, kernel = _three(sizes), _three(self._kernel_size)
        stride, dilation = _three(convolution.stride), _three(convolution.dilation)
        padding = [(0, 0)] * (3 - convolution.rank) + list(convolution.padding)
        out_size = [
            (n + before + after - d * (k - 1) - 1) // s + 1
            for n, (before, after), d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
        ]
        places, groups, is_last = math.prod(out_size), convolution.groups, is_channels_last(x)
        by_place, by_channel = (total_out, 1) if is_last or places == 1 else (1, places)
        finishes = self.finish is not None
        window = (
            *size, *out_size[1:], *kernel[1:], taps, *stride, *(before for before, _ in padding), *dilation,
            total_out * places, by_place, by_channel, -self._shift, 1 if self.finish is None else self.finish.factor,
        )  # fmt: skip
        rows, out_channels = samples * places, total_out // groups
        if in_channels == 1 and groups > 1:
            run, num_warps = kernels.convolve_depthwise, 4
            special: tuple[int, ...] = (out_channels, groups, total_out)
            constants: tuple[Any, ...] = (finishes, 32, 64)
            grid = (-(-rows // 32), -(-total_out // 64), 1)
        else:
            run = kernels.convolve
            special = (in_channels, out_channels, in_channels * groups, total_out)
            is_flat = in_channels < _FEW_CHANNELS and taps > 1
            block_n = min(128, max(32, _power_of_two(out_channels)))
            block_k = 32 if in_channels * (taps if is_flat else 1) <= 32 else 64
            num_warps = 8 if block_n == 128 else 4
            constants = (finishes, is_flat, 128, block_n, block_k)
            grid = (-(-rows // 128), -(-out_channels // block_n), groups)
        numbers = (rows, places, *special, *window)
        is_linear = self._operator.num_spatial_axes == 0
        layout = torch.contiguous_format
        if is_last:
            layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return _Plan(
            run,
            grid,
            numbers,
            constants,
            (special, by_place, by_channel, tuple(number >= WIDE for number in numbers)),
            {"num_warps": num_warps, "num_stages": 4},
            (*x.shape[:-1], total_out) if is_linear else (samples, total_out, *out_size[3 - convolution.rank :]),
            torch.float32 if finishes else torch.int32,
            layout,
            not is_linear and not is_last and math.prod(sizes) > 1,
        )

    def _as_convolution(self, x: Tensor) -> tuple[Convolution, int, tuple[int, ...]]:
        """The map as a convolution, the number of its samples, and their size."""
        if self._operator.num_spatial_axes == 0:
            return self._operator.convolution, math.prod(x.shape[:-1]), (1,)
        return self._operator.convolution, x.shape[0], tuple(x.shape[2:])


@dataclass(frozen=True)
class _Plan:
    """How a kernel runs on inputs of one shape."""

    kernel: Any
    grid: tuple[int, int, int]
    numbers: tuple[int, ...]
    constants: tuple[Any, ...]
    key: Any
    options: dict[str, int]
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: torch.memory_format
    moves_channels: bool


def _three(sizes: Sequence[int]) -> list[int]:
    """With leading ones."""
    return [1] * (3 - len(sizes)) + list(sizes)


def _power_of_two(number: int) -> int:
    """The smallest that is not less."""
    return 1 << (number - 1).bit_length()
