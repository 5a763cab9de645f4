"""The noisy quantizer in one kernel forward and one backward, on GPUs that Triton compiles for.

For noise that reaches one threshold at most, uniform and under `mode`; everything else is
`ana_fx.layers.fake_quantize`'s, whose numbers these are, bit for bit. Backward needs a byte for each number: whether
noise reaches a threshold from there; or, if the scale learns and the noise stays, where in its bin the number lies, as
in `ana_fx.kernels.kept_bytes`. Of a parameter, and under noise that decays, it needs the numbers themselves.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.kernels.int8_levels import WIDE, is_dense, laid_out
from ana_fx.kernels.triton_launch import launch
from ana_fx.schedule.degrees import Gradient, Strategy
from ana_fx.schedule.noise import Noise, Uniform

__all__ = ["Grid", "fused_fake_quantize", "is_usual", "refuse_graph"]

_NOISE, _GRADIENT = Uniform(), Gradient()  # those that the kernels know
_BLOCK, _NUM_WARPS = 2048, 8
_FLOAT = 4  # bytes
_TAIL = 16  # bytes behind those that are kept for backward: the noise, and a count


def refuse_graph(*, learns_scale: bool) -> None:
    """Refuse gradients of gradients through a scale.

    Raises:
        RuntimeError: The scale learns.
    """
    if learns_scale:
        raise RuntimeError(
            "gradients of gradients (create_graph=True) are not computed through quantizers whose scales learn, found "
            "such a scale; prepare the model with a schedule that leaves scales as they are, such as schedule='ste'"
        )


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


def is_usual(noise: Noise, strategy: Strategy, num_neighbours: int, gradient: Gradient) -> bool:
    """Whether the kernels know this noise and this gradient, and `ana_fx.kernels.blocked_quantizer` too."""
    return strategy is Strategy.MODE and num_neighbours == 0 and noise == _NOISE and gradient == _GRADIENT


def fused_fake_quantize(
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    grid: Grid,
    scale_gradient: float = 1.0,
    noise_stays: bool = False,
) -> Tensor:
    """See `ana_fx.layers.fake_quantize.fake_quantize`.

    Args:
        x: Any shape; if the scale has several steps, one for each index of axis 0.
        scale: The step; its absolute value is taken, and not less than `ana_fx.numerics.scale_search.positive` lets
        through.
        mean: Mean of the noise in steps, 0-dimensional.
        std: Standard deviation of the noise in steps, 0-dimensional.
        grid: The levels.
        scale_gradient: Factor of the gradient with respect to `scale`.
        noise_stays: Whether it is just as wide as a step, always; to ask `std` would be to wait for the GPU.
    """
    x = x if is_dense(x) else x.contiguous()
    is_there_anyway = x.is_leaf and x.requires_grad
    keeps_parts = noise_stays and scale.requires_grad and scale.numel() == 1 and not is_there_anyway
    settings = _Settings(mean, std, grid, scale_gradient, keeps_parts)
    out: Tensor = _FusedFakeQuantize.apply(x, scale, settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


@cache
def _kernels() -> Any:
    """They need Triton; to import them at every call would take a tenth of its time."""
    from ana_fx.kernels import triton_kernels

    return triton_kernels


class _Settings(NamedTuple):
    mean: Tensor
    std: Tensor
    grid: Grid
    scale_gradient: float
    keeps_parts: bool


class _FusedFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, settings: _Settings) -> Tensor:
        mean, std, grid, _, keeps_parts = settings
        learns_x, learns_scale, _ = ctx.needs_input_grad
        keeps_near = learns_x and not learns_scale
        keeps_tail = keeps_near or learns_scale
        y = torch.empty_like(x, dtype=torch.float32)
        size, rows = x.numel(), scale.numel()
        tail_at = -(-size // _TAIL) * _TAIL if keeps_near or keeps_parts else 0
        row_size = size // rows
        room = tail_at + _TAIL + keeps_parts * _FLOAT * -(-size // _BLOCK)  # a number for each block
        kept = torch.empty(room, dtype=torch.uint8, device=x.device) if keeps_tail else y
        launch(
            _kernels().quantize_forward,
            (rows * -(-row_size // _BLOCK), 1, 1),
            (x, scale, mean, std, y, kept),
            (row_size, tail_at, *map(float, grid)),
            (keeps_near, keeps_parts, keeps_tail, _BLOCK),
            (x.dtype, scale.dtype, _kind_of(row_size), tail_at < WIDE),
            num_warps=_NUM_WARPS,
            enable_fp_fusion=False,
        )
        if keeps_tail:
            ctx.save_for_backward(*((kept,) if keeps_near else (kept, scale) if keeps_parts else (kept, scale, x)))
            ctx.dtype, ctx.strides, ctx.settings = x.dtype, x.stride(), settings
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if grad.requires_grad:  # somebody wants gradients of gradients
            refuse_graph(learns_scale=ctx.needs_input_grad[1])
            return grad * _gradients(ctx, torch.ones_like(grad))[0], None, None
        return *_gradients(ctx, grad), None


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and of the scale, if it learns."""
    kept, *sources = ctx.saved_tensors
    grad = laid_out(grad, ctx.strides)
    grad_x = torch.empty_like(grad, dtype=ctx.dtype)
    size, settings = grad.numel(), ctx.settings
    dtypes: tuple[Hashable, ...] = (grad.dtype, ctx.dtype)
    blocks, tail_at = -(-size // _BLOCK), -(-size // _TAIL) * _TAIL
    if not sources:
        key: tuple[Hashable, ...] = (*dtypes, _kind_of(size), tail_at < WIDE)
        _run(_kernels().quantize_backward, blocks, (grad, kept, grad_x), (size, tail_at), key)
        return grad_x, None
    scale, numbers = sources[0], (*map(float, settings.grid), settings.scale_gradient)
    if settings.keeps_parts:
        grad_scale = torch.empty_like(scale)
        key = (*dtypes, scale.dtype, _kind_of(size), tail_at < WIDE)
        tensors: tuple[Tensor, ...] = (grad, kept, scale, grad_x, grad_scale)
        _run(_kernels().parts_backward, blocks, tensors, (size, tail_at, *numbers), key)
        return grad_x, grad_scale
    row_size = size // scale.numel()
    partial = torch.empty((scale.numel(), -(-row_size // _BLOCK)), dtype=torch.float32, device=grad.device)
    key = (*dtypes, scale.dtype, _kind_of(row_size))
    tensors = (grad, sources[1], scale, kept, grad_x, partial)
    _run(_kernels().scale_backward, partial.numel(), tensors, (row_size, *numbers), key)
    return grad_x, partial.sum(1).reshape(scale.shape)


def _run(
    kernel: Any, num_programs: int, tensors: tuple[Tensor, ...], numbers: tuple[float, ...], key: tuple[Hashable, ...]
) -> None:
    """Run one of the kernels of backward."""
    grid, constants = (num_programs, 1, 1), (_BLOCK,)
    launch(kernel, grid, tensors, numbers, constants, key, num_warps=_NUM_WARPS, enable_fp_fusion=False)


def _kind_of(size: int) -> int:
    """What Triton tells apart in a size."""
    return 1 if size == 1 else (size % 16 == 0) * 2 + (size >= WIDE) * 4
