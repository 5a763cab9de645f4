"""Sums of products of 8-bit integers on GPUs, exact by construction and as fast as the processor allows.

Off the CPU a float convolution may be computed by Winograd's or Fourier's transform, or from inputs rounded to TF32;
no sum of it can be trusted. These products are integers all the way: int8 factors, int32 sums, in the matrix units of
the GPU where a map has many channels. Integer sums do not depend on their order, and none leaves 32 bits as long as
the bound of the accumulators is below 2**31. Levels 0 … 255 are shifted into int8; each accumulator then lacks the
shift times the sum of its weights, another integer, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ana_fx.affine import Affine, Convolution, Linear, TransposedConvolution
from ana_fx.numbers import IntegerType
from ana_fx.pairs import MatMul, Sum
from ana_fx.staircase import QLinearStaircase, Staircase
from ana_fx.triton_launch import has_triton, launch

__all__ = ["Finish", "Int8Convolution", "Int8MatMul", "Int8Sum", "fits_int8", "int8_products", "is_channels_last"]

_LARGEST_SUM = 2**31
_FLAT_BLOCK = 2048
_FEW_CHANNELS = 16  # with fewer, a block of products takes channels of several taps


@dataclass(frozen=True)
class Finish:
    """The QLinear staircase that follows, and the scale of its output (see `ana_fx.staircase`).

    Args:
        slope: Float32, [channels].
        bias: Int32, [channels].
        ends: The lowest level, the highest one, and the scale of the output, float32, [3].
        factor: Head-room of the weights.
    """

    slope: Tensor
    bias: Tensor
    ends: Tensor
    factor: int

    @classmethod
    def of(cls, staircase: Staircase | None, output_scale: Tensor, num_channels: int) -> Finish | None:
        """Of a staircase whose sums stay in 32 bits, else None."""
        if not isinstance(staircase, QLinearStaircase) or staircase.bias.dtype != torch.int32:
            return None
        if max(staircase.bias.numel(), staircase.stored_slope.numel()) > num_channels:
            return None
        device = output_scale.device
        ends = [torch.as_tensor(end, device=device, dtype=torch.float32) for end in (staircase.lo, staircase.hi)]
        return cls(
            staircase.stored_slope.expand(num_channels).contiguous(),
            staircase.bias.expand(num_channels).contiguous(),
            torch.stack([*ends, output_scale]),
            staircase.factor,
        )


def fits_int8(
    affine: Affine, device: torch.device, kinds: Sequence[IntegerType], weight_magnitude: int, bound: int
) -> bool:
    """Whether there is a kernel for the products of a map.

    Args:
        affine: The map.
        device: Where its tensors lie.
        kinds: The levels of each input.
        weight_magnitude: No coefficient exceeds this in absolute value.
        bound: Nor does an accumulator this.
    """
    if device.type != "cuda" or not has_triton():
        return False
    if isinstance(affine, MatMul | Sum):
        return len(kinds) == 2 and bound < _LARGEST_SUM
    is_product = isinstance(affine, Convolution | TransposedConvolution | Linear)
    return is_product and len(kinds) == 1 and weight_magnitude < 128 and bound < _LARGEST_SUM


def int8_products(
    affine: Affine,
    weight: Tensor | None,
    kinds: Sequence[IntegerType],
    finish: Finish | None = None,
    sign: Tensor | None = None,
) -> Int8Convolution | Int8MatMul:
    """The products of a map that fits.

    Args:
        affine: The map.
        weight: Integer coefficients, if it has any.
        kinds: The levels of each input.
        finish: The staircase; with it results are real.
        sign: Of the accumulators of a matrix product, before the staircase, [1].
    """
    shifts = [0 if kind.qmax < 128 else kind.qmin + 128 for kind in kinds]
    if isinstance(affine, MatMul):
        return Int8MatMul((shifts[0], shifts[1]), finish, sign)
    assert weight is not None
    return Int8Convolution(affine, weight, shifts[0], finish)


class Int8Convolution:
    """A convolution, transposed convolution or linear map of levels.

    Args:
        affine: The map.
        weight: Integer coefficients.
        shift: What is taken from the levels so that they fit int8.
        finish: The staircase, if there is one.
    """

    def __init__(self, affine: Affine, weight: Tensor, shift: int, finish: Finish | None = None) -> None:
        self.finish = finish
        self._affine = affine
        self._shift = shift
        whole = weight.unsqueeze(-1) if isinstance(affine, Linear) else weight
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
        (x,), (scale,), affine = tensors, scales, self._affine
        if isinstance(affine, TransposedConvolution):
            x = affine.spread(x)
        if not x.is_contiguous() and not is_channels_last(x):
            x = x.contiguous()
        key = (x.shape, x.stride(), x.dtype)
        plan = self._plans.get(key)
        if plan is None:
            self._plans.clear()  # of other batch sizes
            plan = self._plans[key] = self._plan(x)
        levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        _write_levels(x, scale, levels, self._shift, is_moved=plan.moves_channels)
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
        from ana_fx import triton_products as kernels

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
        is_linear = isinstance(self._affine, Linear)
        layout = torch.contiguous_format
        if is_last:
            layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return _Plan(
            run,
            grid,
            numbers,
            constants,
            (special, by_place, by_channel, tuple(number >= _LARGEST_SUM for number in numbers)),
            {"num_warps": num_warps, "num_stages": 4},
            (*x.shape[:-1], total_out) if is_linear else (samples, total_out, *out_size[3 - convolution.rank :]),
            torch.float32 if finishes else torch.int32,
            layout,
            not is_linear and not is_last and math.prod(sizes) > 1,
        )

    def _as_convolution(self, x: Tensor) -> tuple[Convolution, int, tuple[int, ...]]:
        """The map as a convolution, the number of its samples, and their size."""
        if isinstance(self._affine, Linear):
            return Convolution((1,), ((0, 0),), (1,), 1), math.prod(x.shape[:-1]), (1,)
        affine = self._affine.convolution if isinstance(self._affine, TransposedConvolution) else self._affine
        assert isinstance(affine, Convolution)
        return affine, x.shape[0], tuple(x.shape[2:])


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


@dataclass(frozen=True)
class Int8MatMul:
    """Matrix products over the last two axes.

    Args:
        shifts: What is taken from the levels of each factor so that they fit int8.
        finish: The staircase of one channel, if there is one.
        sign: Of the accumulators then, float32, [1].
    """

    shifts: tuple[int, int]
    finish: Finish | None = None
    sign: Tensor | None = None

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Any tensors."""
        return True

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of reals, multiples of their scales: int32 accumulators, or what the staircase makes of them, real."""
        from ana_fx import triton_products as kernels

        batch = torch.broadcast_shapes(tensors[0].shape[:-2], tensors[1].shape[:-2])
        factors = []
        for x, scale, shift in zip(tensors, scales, self.shifts, strict=True):
            x = x.contiguous()
            levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
            _write_levels(x, scale, levels, shift, is_moved=False)
            factors.append(levels.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:]))
        first, second = factors
        (count, m, inner), n = first.shape, second.shape[-1]
        finish, sign = self.finish, self.sign
        finishes = finish is not None and sign is not None
        out = torch.empty((count, m, n), dtype=torch.float32 if finishes else torch.int32, device=first.device)
        last = (out, out, out, out)
        if finish is not None and sign is not None:
            last = (sign, finish.slope, finish.bias, finish.ends)
        factor = 1 if finish is None else finish.factor
        numbers = (m, n, inner, *first.stride(), *second.stride(), *self.shifts, factor)
        block_k = 32 if inner <= 32 else 64
        launch(
            kernels.multiply,
            (-(-m // 64), -(-n // 64), count),
            (first, second, out, *last),
            numbers,
            (finishes, 64, 64, block_k),
            numbers,
            num_warps=4,
            num_stages=3,
            enable_fp_fusion=False,
        )
        return out.reshape(*batch, m, n)


@dataclass(frozen=True)
class Int8Sum:
    """The reals that a staircase makes of c₀ · n₀ + c₁ · n₁; one channel.

    Args:
        coefficients: c, [2].
        sign: Of the sum, [1].
        finish: The staircase.
    """

    coefficients: Tensor
    sign: Tensor
    finish: Finish

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether both tensors have one shape and layout."""
        first, second = tensors
        is_dense = first.is_contiguous() or is_channels_last(first)
        return first.shape == second.shape and first.stride() == second.stride() and is_dense

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of two tensors that it takes."""
        from ana_fx import triton_products as kernels

        first, second = tensors
        y = torch.empty_like(first, dtype=torch.float32)
        size, finish = first.numel(), self.finish
        launch(
            kernels.combine,
            (-(-size // 1024), 1, 1),
            (first, second, *scales, self.coefficients, self.sign, y, finish.slope, finish.bias, finish.ends),
            (size, finish.factor),
            (1024,),
            (
                first.dtype,
                second.dtype,
                scales[0].dtype,
                scales[1].dtype,
                size == 1,
                size % 16 == 0,
                size >= _LARGEST_SUM,
            ),
            num_warps=4,
            enable_fp_fusion=False,
        )
        return y


def _write_levels(x: Tensor, scale: Tensor, levels: Tensor, shift: int, *, is_moved: bool) -> None:
    """The levels less `shift`, in the order of `x` in memory, or with the channels of [N, C, *size] last."""
    from ana_fx import triton_products as kernels

    size = x.numel()
    if not is_moved:
        launch(
            kernels.write_flat_levels,
            (-(-size // _FLAT_BLOCK), 1, 1),
            (x, scale, levels),
            (size, float(shift)),
            (_FLAT_BLOCK,),
            (x.dtype, scale.dtype, size == 1, size % 16 == 0, size >= _LARGEST_SUM),
            num_warps=8,
            enable_fp_fusion=False,
        )
        return
    samples, channels = x.shape[:2]
    places = size // (samples * channels)
    launch(
        kernels.write_levels,
        (-(-places // 32), -(-channels // 64), samples),
        (x, scale, levels),
        (places, channels, float(shift)),
        (32, 64),
        (x.dtype, scale.dtype, channels == 1, channels % 16 == 0, places % 16 == 0),
        num_warps=4,
        enable_fp_fusion=False,
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels lie together in memory, and not also as they do by default."""
    if x.ndim in (4, 5):
        layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return x.is_contiguous(memory_format=layout) and not x.is_contiguous()
    return False


def _three(sizes: Sequence[int]) -> list[int]:
    """With leading ones."""
    return [1] * (3 - len(sizes)) + list(sizes)


def _power_of_two(number: int) -> int:
    """The smallest that is not less."""
    return 1 << (number - 1).bit_length()
