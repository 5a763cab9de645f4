"""The noisy quantizer in one kernel forward and one backward, on GPUs that Triton compiles for.

For noise that reaches one threshold at most, uniform and under `mode`; everything else is `ana_fx.fake_quantize`'s,
whose numbers these are, bit for bit. Backward needs a byte for each number: whether noise reaches a threshold from
there; or, if the scale learns, the numbers themselves.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.noise import NoiseType
from ana_fx.schedule import Strategy

__all__ = ["Grid", "fused_fake_quantize", "is_fused"]


class Grid(NamedTuple):
    """The levels of a quantizer, before the clip range takes some away.

    Args:
        lowest: The lowest level.
        highest: The highest one.
        offset: The distance of a threshold below its level.
        minimum: Levels below this real are left out.
        maximum: Levels above this real are left out.
    """

    lowest: int
    highest: int
    offset: float
    minimum: float
    maximum: float


def is_fused(x: Tensor, noise: NoiseType, strategy: Strategy, num_neighbours: int) -> bool:
    """Whether there is a kernel for these numbers and this noise; a compiler that traces makes its own."""
    is_simple = noise is NoiseType.UNIFORM and strategy is Strategy.MODE and num_neighbours == 0
    return is_simple and x.is_cuda and not torch.compiler.is_compiling() and x.numel() > 0 and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def fused_fake_quantize(
    x: Tensor, scale: Tensor, mean: Tensor, std: Tensor, *, grid: Grid, scale_gradient: float = 1.0
) -> Tensor:
    """See `ana_fx.fake_quantize.fake_quantize`.

    Args:
        x: Any shape; if the scale has several steps, one for each index of axis 0.
        scale: The step; its absolute value is taken, and not less than `ana_fx.scale.positive` lets through.
        mean: Mean of the noise in steps, 0-dimensional.
        std: Standard deviation of the noise in steps, 0-dimensional.
        grid: The levels.
        scale_gradient: Factor of the gradient with respect to `scale`.
    """
    out: Tensor = _FusedFakeQuantize.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        x, scale, mean, std, grid, scale_gradient
    )
    return out


class _FusedFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, mean: Tensor, std: Tensor, grid: Grid, scale_gradient: float
    ) -> Tensor:
        from ana_fx import triton_kernels as kernels

        x = x if _is_dense(x) else x.contiguous()
        learns_x, learns_scale = ctx.needs_input_grad[:2]
        keeps_near = learns_x and not learns_scale
        y = torch.empty_like(x, dtype=torch.float32)
        near = torch.empty_like(x, dtype=torch.uint8) if keeps_near else y
        density = torch.empty((), dtype=torch.float32, device=x.device)
        row_size = x.numel() // scale.numel()
        kernels.quantize_forward[(scale.numel() * -(-row_size // kernels.BLOCK),)](
            x, scale, mean, std, y, near, density, row_size, *map(float, grid),
            KEEPS_NEAR=keeps_near, BLOCK=kernels.BLOCK, num_warps=kernels.NUM_WARPS, enable_fp_fusion=False,
        )  # fmt: skip
        if learns_scale:
            ctx.save_for_backward(x, scale, torch.stack((mean, std)))
        elif learns_x:
            ctx.save_for_backward(near, density)
        ctx.dtype, ctx.grid, ctx.scale_gradient = x.dtype, grid, scale_gradient
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from ana_fx import triton_kernels as kernels

        first = ctx.saved_tensors[0]
        if grad.stride() != first.stride():
            grad = torch.empty_like(first, dtype=grad.dtype).copy_(grad)
        grad_x = torch.empty_like(first, dtype=ctx.dtype)
        options = {"BLOCK": kernels.BLOCK, "num_warps": kernels.NUM_WARPS, "enable_fp_fusion": False}
        if not ctx.needs_input_grad[1]:
            near, density = ctx.saved_tensors
            size = near.numel()
            kernels.quantize_backward[(-(-size // kernels.BLOCK),)](grad, near, density, grad_x, size, **options)
            return grad_x, None, None, None, None, None
        x, scale, noise = ctx.saved_tensors
        row_size = x.numel() // scale.numel()
        blocks = -(-row_size // kernels.BLOCK)
        partial = torch.empty((scale.numel(), blocks), dtype=torch.float32, device=x.device)
        kernels.scale_backward[(partial.numel(),)](
            grad, x, scale, noise, grad_x, partial, row_size, *map(float, ctx.grid), ctx.scale_gradient, **options
        )
        grad_scale = partial.sum(1).reshape(scale.shape).mul_(_sign(scale))
        return grad_x, grad_scale, None, None, None, None


def _sign(scale: Tensor) -> Tensor:
    """The derivative of `ana_fx.scale.positive`."""
    return scale.sign() * (scale.abs() >= 2.0**-60)


def _is_dense(x: Tensor) -> bool:
    """Whether the numbers fill their memory in an order in which axis 0 comes first."""
    return x.is_contiguous() or (
        x.ndim in (4, 5)
        and x.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    )
