"""The noisy quantizer on CPUs, a block of numbers at a time, which stays in the cache, and in few operations.

For noise that reaches one threshold at most, uniform and under `mode`; everything else is
`ana_fx.layers.fake_quantize`'s, whose numbers these are, bit for bit.

Backward reads a parameter again, which is there anyway. Of other numbers it keeps a byte each, if that tells the
gradient of the scale (see `ana_fx.kernels.kept_bytes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.bins import Bins, bins_of
from ana_fx.kernels.blocks import blocks, rooms_like
from ana_fx.kernels.fused_quantizer import Grid, refuse_graph
from ana_fx.kernels.int8_levels import is_dense, laid_out
from ana_fx.kernels.kept_bytes import (
    gradient_where_near,
    gradients_from_parts,
    near_,
    parts_tell,
    write_near,
    write_parts,
)
from ana_fx.numerics.scale_search import one_step, positive, slope_of_positive

__all__ = ["blocked_fake_quantize", "is_blocked"]

_Write = Callable[[Tensor, Tensor, Bins, Tensor], None]


def is_blocked(x: Tensor) -> bool:
    """Whether numbers can be quantised block by block."""
    return x.is_cpu and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def blocked_fake_quantize(
    x: Tensor,
    scale: Tensor,
    noise: tuple[float, float],
    *,
    grid: Grid,
    scale_gradient: float = 1.0,
) -> Tensor:
    """See `ana_fx.kernels.fused_quantizer.fused_fake_quantize`, whose other arguments these are.

    If the scale has several steps, the clip range is all numbers or those from 0.

    Args:
        noise: Mean and standard deviation, in steps.
    """
    x = x if is_dense(x) else x.contiguous()
    steps = scale.detach()
    if scale.numel() == 1:
        step, slope, steps = one_step(steps)
    else:
        step, slope, steps = 1.0, 1.0, positive(steps)
    bins = bins_of(grid, step, *noise)
    if not (torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)):
        return _quantized(x, steps, bins)
    is_there_anyway = x.is_leaf and x.requires_grad
    settings = (steps, bins, slope * scale_gradient, is_there_anyway)
    out: Tensor = _BlockedFakeQuantize.apply(x, scale, *settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _quantized(x: Tensor, steps: Tensor, bins: Bins) -> Tensor:
    """The value alone."""
    y = torch.empty_like(x, dtype=torch.float32)
    for numbers, out, step in blocks(steps, x, y):
        _in_steps(numbers, step, bins, out).floor_().clamp_(bins.lo, bins.hi).mul_(step)
    return y


def _quantized_and_byte(x: Tensor, steps: Tensor, bins: Bins, write: _Write) -> tuple[Tensor, Tensor]:
    """The value, and the byte that is kept of each number."""
    y = torch.empty_like(x, dtype=torch.float32)
    byte = torch.empty_like(x, dtype=torch.int8)
    for numbers, out, part, step in blocks(steps, x, y, byte):
        write(_in_steps(numbers, step, bins, out), step, bins, part)
    return y, byte


def _in_steps(x: Tensor, step: Tensor, bins: Bins, out: Tensor) -> Tensor:
    """v, as `Bins` says."""
    divided = torch.div(x, step, out=out) if x.dtype == torch.float32 else out.copy_(x).div_(step)
    return divided.add_(bins.shift)


class _BlockedFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, steps: Tensor, bins: Bins, factor: float, is_there_anyway: bool
    ) -> Tensor:
        learns_scale = ctx.needs_input_grad[1]
        ctx.bins, ctx.factor, ctx.dtype, ctx.shape = bins, factor, x.dtype, scale.shape
        if is_there_anyway or (learns_scale and not (scale.numel() == 1 and parts_tell(bins))):
            ctx.save_for_backward(x, scale, steps.clone())  # a scale may be written before backward
            return _quantized(x, steps, bins)
        y, kept = _quantized_and_byte(x, steps, bins, write_parts if learns_scale else write_near)
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns_scale = ctx.needs_input_grad[1]
        if grad.requires_grad:  # somebody wants gradients of gradients
            refuse_graph(learns_scale=learns_scale)
            return grad * _gradients(ctx, torch.ones_like(grad), learns_scale=False)[0], *(None,) * 5
        return *_gradients(ctx, grad, learns_scale=learns_scale), *(None,) * 4


@torch.no_grad()
def _gradients(ctx: Any, grad: Tensor, *, learns_scale: bool) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and of the scale."""
    kept, *others = ctx.saved_tensors
    grad = laid_out(grad, kept.stride())
    if not others:
        if not learns_scale:
            return gradient_where_near(grad, kept, ctx.bins, ctx.dtype), None
        grad_x, grad_step = gradients_from_parts(grad, kept, ctx.bins, ctx.dtype)
        return grad_x, torch.full(ctx.shape, grad_step * ctx.factor, dtype=torch.float32, device="cpu")
    scale, steps = others
    grad_x, grad_steps = _gradients_from_x(grad, kept, steps, ctx.bins, learns_scale=learns_scale)
    if grad_steps is None:
        return grad_x, None
    grad_scale = grad_steps.reshape(scale.shape).mul_(ctx.factor)
    return grad_x, grad_scale.mul_(slope_of_positive(scale)) if scale.numel() > 1 else grad_scale


def _gradients_from_x(
    grad: Tensor, x: Tensor, steps: Tensor, bins: Bins, *, learns_scale: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of x and of the steps."""
    grad_x = torch.empty_like(grad, dtype=x.dtype)
    grad_steps: list[Tensor] = []
    for upstream, numbers, out, step in blocks(steps, grad, x, grad_x):
        v, clipped, room = rooms_like(upstream, 3)
        _in_steps(numbers, step, bins, v)
        torch.clamp(v, bins.lower, bins.upper, out=clipped)
        slope = near_(v, clipped, bins)
        if bins.height != 1.0:
            slope.mul_(bins.height)
        if learns_scale:
            level = torch.floor(clipped, out=room)
            level.addcmul_(clipped.sub_(bins.shift), slope, value=-1.0)
            grad_steps.append(level.mul_(upstream).sum_to_size(step.shape))
        torch.mul(slope, upstream, out=out)
    if not learns_scale:
        return grad_x, None
    return grad_x, torch.cat(grad_steps) if steps.numel() > 1 else torch.stack(grad_steps).sum()
