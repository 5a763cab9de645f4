"""The levels of tensors as int8, and the staircase that follows the sums of `ana_fx.kernels.exact_products`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.triton_launch import launch
from ana_fx.requantizers.staircase import QLinearStaircase

__all__ = ["WIDE", "Finish", "is_channels_last", "is_dense", "laid_out", "read_levels", "write_levels"]

WIDE = 2**31  # numbers from here on need 64 bits
_BLOCK = 2048


@dataclass(frozen=True)
class Finish:
    """The QLinear staircase that follows, and the scale of its output (see `ana_fx.requantizers.staircase`).

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
    def of(cls, staircase: object, output_scale: Tensor, num_channels: int) -> Finish | None:
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


def write_levels(x: Tensor, scale: Tensor, levels: Tensor, shift: int, *, is_moved: bool) -> None:
    """The levels less `shift`, in the order of `x` in memory, or with the channels of [N, C, *size] last."""
    from ana_fx.kernels import triton_products as kernels

    if not is_moved:
        _run_flat(kernels.write_flat_levels, x, scale, levels, shift)
        return
    samples, channels = x.shape[:2]
    places = x.numel() // (samples * channels)
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


def read_levels(levels: Tensor, scale: Tensor, shift: int) -> Tensor:
    """The multiples of the scale of which `write_levels` wrote the levels in their order; float32."""
    from ana_fx.kernels import triton_products as kernels

    x = torch.empty_like(levels, dtype=torch.float32)
    _run_flat(kernels.read_flat_levels, levels, scale, x, shift)
    return x


def _run_flat(kernel: Any, source: Tensor, scale: Tensor, result: Tensor, shift: int) -> None:
    size = source.numel()
    launch(
        kernel,
        (-(-size // _BLOCK), 1, 1),
        (source, scale, result),
        (size, float(shift)),
        (_BLOCK,),
        (source.dtype, scale.dtype, size == 1, size % 16 == 0, size >= WIDE),
        num_warps=8,
        enable_fp_fusion=False,
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels lie together in memory, and not also as they do by default."""
    if x.ndim in (4, 5):
        layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        return x.is_contiguous(memory_format=layout) and not x.is_contiguous()
    return False


def is_dense(x: Tensor) -> bool:
    """Whether the numbers fill their memory in an order in which axis 0 comes first."""
    return x.is_contiguous() or is_channels_last(x)


def laid_out(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The same numbers with these strides; itself if it has them."""
    if x.stride() == strides:
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)
