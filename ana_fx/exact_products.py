"""Sums of products of 8-bit integers on GPUs, exact by construction and as fast as the processor allows.

Off the CPU a float convolution may be computed by Winograd's or Fourier's transform, or from inputs rounded to TF32;
no sum of it can be trusted. These products are integers all the way: int8 factors, int32 sums, in the matrix units of
the GPU where a map has many channels. Integer sums do not depend on their order, and none leaves 32 bits as long as
the bound of the accumulators is below 2**31. Levels 0 … 255 are shifted into int8; each accumulator then lacks the
shift times the sum of its weights, another integer, which is added.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ana_fx.affine import Affine, Convolution, Linear, TransposedConvolution
from ana_fx.numbers import IntegerType
from ana_fx.pairs import MatMul
from ana_fx.staircase import QLinearStaircase, Staircase

__all__ = ["Finish", "accumulate_int8", "fits_int8"]

_LARGEST_SUM = 2**31


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
        device = output_scale.device
        ends = [torch.as_tensor(end, device=device, dtype=torch.float32) for end in (staircase.lo, staircase.hi)]
        return cls(
            staircase.stored_slope.expand(num_channels).contiguous(),
            staircase.bias.expand(num_channels).contiguous(),
            torch.stack([*ends, output_scale]),
            staircase.factor,
        )


def fits_int8(affine: Affine, device: torch.device, kinds: Sequence[IntegerType], weight_magnitude: int, bound: int) -> bool:
    """Whether there is a kernel for the products of a map.

    Args:
        affine: The map.
        device: Where its tensors lie.
        kinds: The levels of each input.
        weight_magnitude: No coefficient exceeds this in absolute value.
        bound: Nor does an accumulator this.
    """
    if device.type != "cuda" or torch.compiler.is_compiling() or not _has_triton():
        return False
    if isinstance(affine, MatMul):
        return len(kinds) == 2 and bound < _LARGEST_SUM
    is_product = isinstance(affine, Convolution | TransposedConvolution | Linear)
    return is_product and len(kinds) == 1 and weight_magnitude < 128 and bound < _LARGEST_SUM


def fits_sum(tensors: tuple[Tensor, ...]) -> bool:
    """Whether there is a kernel for the sum of two tensors."""
    first, second = tensors
    if not first.is_cuda or torch.compiler.is_compiling() or not _has_triton():
        return False
    is_dense = first.is_contiguous() or _is_channels_last(first)
    return first.shape == second.shape and first.stride() == second.stride() and is_dense


@cache
def _has_triton() -> bool:
    return torch.version.hip is None and importlib.util.find_spec("triton") is not None


def accumulate_int8(
    affine: Affine,
    tensors: tuple[Tensor, ...],
    scales: tuple[Tensor, ...],
    weight: Tensor | None,
    kinds: Sequence[IntegerType],
    finish: Finish | None = None,
) -> Tensor:
    """The int32 accumulators of a map that fits, or what a staircase makes of them.

    Args:
        affine: The map.
        tensors: Reals, multiples of their scales.
        scales: The scale of each.
        weight: Integer coefficients.
        kinds: The levels of each input.
        finish: The staircase; with it the result is real.
    """
    shifts = [0 if kind.qmax < 128 else kind.qmin + 128 for kind in kinds]
    if isinstance(affine, MatMul):
        return _multiply(tensors, scales, shifts)
    assert weight is not None
    (x,), (scale,), (shift,) = tensors, scales, shifts
    if isinstance(affine, Linear):
        rows = x.reshape(-1, x.shape[-1], 1)
        convolution = Convolution((1,), ((0, 0),), (1,), 1)
        y = _convolve(convolution, rows, scale, weight.unsqueeze(-1), shift, finish)
        return y.reshape(*x.shape[:-1], len(weight))
    if isinstance(affine, TransposedConvolution):
        affine, x = affine.convolution, affine.spread(x)
    assert isinstance(affine, Convolution)
    return _convolve(affine, x, scale, weight, shift, finish)


def _levels(x: Tensor, scale: Tensor, shift: int) -> Tensor:
    """The levels of [N, C, *size] less `shift`, int8 [N, places, C]."""
    from ana_fx import triton_products as kernels

    x = x if _is_channels_last(x) or x.is_contiguous() else x.contiguous()
    samples, channels = x.shape[:2]
    places = math.prod(x.shape[2:])
    levels = torch.empty((samples, places, channels), dtype=torch.int8, device=x.device)
    by_channel, by_place = (1, channels) if _is_channels_last(x) else (places, 1)
    block_p, block_c = (32, 64) if places > 1 else (1, 1024)
    if places == 1:  # rows of a matrix
        samples, places, by_place = 1, samples, channels
        by_channel, block_p, block_c = 1, 16, 128
    kernels.write_levels[(-(-places // block_p), -(-channels // block_c), samples)](
        x, scale, levels, places, channels, by_channel, by_place, places * channels, float(shift),
        BLOCK_P=block_p, BLOCK_C=block_c, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return levels


def _is_channels_last(x: Tensor) -> bool:
    if x.ndim in (4, 5):
        layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return x.is_contiguous(memory_format=layout) and not x.is_contiguous()
    return False


def _convolve(
    convolution: Convolution, x: Tensor, scale: Tensor, weight: Tensor, shift: int, finish: Finish | None
) -> Tensor:
    from ana_fx import triton_products as kernels

    levels = _levels(x, scale, shift)
    total_out, in_channels = weight.shape[:2]
    w = weight.to(torch.int8).flatten(2).transpose(1, 2).contiguous()  # [out, taps, in]
    correction = w.sum((1, 2), dtype=torch.int32).mul_(shift)
    size, kernel = _three(x.shape[2:]), _three(weight.shape[2:])
    stride, dilation = _three(convolution.stride), _three(convolution.dilation)
    padding = [(0, 0)] * (3 - convolution.rank) + list(convolution.padding)
    out_size = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, (before, after), d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    places, taps, groups = math.prod(out_size), math.prod(kernel), convolution.groups
    shape = (len(x), total_out, *out_size[3 - convolution.rank :])
    out = _empty(shape, x, torch.int32 if finish is None else torch.float32)
    by_channel, by_place = (1, total_out) if _is_channels_last(x) or places == 1 else (places, 1)
    rows = len(x) * places
    last = (scale, correction, scale, 1)  # unused
    if finish is not None:
        last = (finish.slope, finish.bias, finish.ends, finish.factor)
    numbers = (
        *size, *out_size[1:], *kernel[1:], taps, *stride, *(before for before, _ in padding), *dilation,
        total_out * places, by_place, by_channel, -shift, last[3],
    )  # fmt: skip
    head = (levels, w, correction, out, *last[:3], rows, places)
    if in_channels == 1 and groups > 1:
        block_m, block_n = 32, 64
        kernels.convolve_depthwise[(-(-rows // block_m), -(-total_out // block_n))](
            *head, total_out // groups, groups, total_out, *numbers,
            FINISHES=finish is not None, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        return out
    out_channels = total_out // groups
    block_n = min(128, max(32, _power_of_two(out_channels)))
    block_m, block_k = 128, 32 if in_channels <= 32 else 64
    kernels.convolve[(-(-rows // block_m), -(-out_channels // block_n), groups)](
        *head, in_channels, out_channels, in_channels * groups, total_out, *numbers,
        FINISHES=finish is not None, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        num_warps=8 if block_n == 128 else 4, num_stages=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def _empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    layout = torch.contiguous_format
    if _is_channels_last(like):
        layout = torch.channels_last if like.ndim == 4 else torch.channels_last_3d
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


def _multiply(tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...], shifts: list[int]) -> Tensor:
    """Matrix products over the last two axes, int32."""
    from ana_fx import triton_products as kernels

    batch = torch.broadcast_shapes(tensors[0].shape[:-2], tensors[1].shape[:-2])
    first, second = (
        _levels(x.reshape(-1, 1), scale, shift).reshape(x.shape).expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
        for x, scale, shift in zip(tensors, scales, shifts, strict=True)
    )
    (count, m, inner), n = first.shape, second.shape[-1]
    out = torch.empty((count, m, n), dtype=torch.int32, device=first.device)
    block_k = 32 if inner <= 32 else 64
    kernels.multiply[(-(-m // 64), -(-n // 64), count)](
        first, second, out, m, n, inner, *first.stride(), *second.stride(), *shifts,
        BLOCK_M=64, BLOCK_N=64, BLOCK_K=block_k, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out.reshape(*batch, m, n)


def _three(sizes: Sequence[int]) -> list[int]:
    """With leading ones."""
    return [1] * (3 - len(sizes)) + list(sizes)


def _power_of_two(number: int) -> int:
    """The smallest that is not less."""
    return 1 << (number - 1).bit_length()


def combine(
    tensors: tuple[Tensor, Tensor], scales: tuple[Tensor, ...], coefficients: Tensor, sign: Tensor, finish: Finish
) -> Tensor:
    """The reals that a staircase makes of c₀ · n₀ + c₁ · n₁, of two tensors of one shape and layout; one channel."""
    from ana_fx import triton_products as kernels

    first, second = tensors
    y = torch.empty_like(first, dtype=torch.float32)
    kernels.combine[(-(-first.numel() // 1024),)](
        first, second, *scales, coefficients, sign, y, finish.slope, finish.bias, finish.ends,
        first.numel(), 1, 1, finish.factor, BLOCK=1024, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return y
