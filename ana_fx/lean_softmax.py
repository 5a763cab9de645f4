"""Softmax of quantised numbers that keeps a byte for each of them for its gradient, on GPUs.

Torch keeps the output, four bytes. It is a function of the levels, so backward computes it again, by the same kernel
from the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ana_fx.int8_levels import write_levels
from ana_fx.numbers import IntegerType
from ana_fx.scale import positive
from ana_fx.triton_launch import has_kernels

__all__ = ["is_lean", "lean_softmax"]

_ALIGNMENT = 16  # bytes; softmax of numbers that start elsewhere may sum in another order


def is_lean(x: Tensor, kind: IntegerType) -> bool:
    """Whether there is something to save, and kernels for it."""
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and has_kernels(x)
        and x.dtype is torch.float32
        and kind.qmax - kind.qmin < 256
        and x.is_contiguous()
        and x.data_ptr() % _ALIGNMENT == 0
    )


def lean_softmax(x: Tensor, axis: int, scale: Tensor, kind: IntegerType) -> Tensor:
    """`torch.softmax`, and its gradient, bit for bit.

    Args:
        x: Multiples of the scale, contiguous.
        axis: The axis.
        scale: The scale; no gradient reaches it from here.
        kind: The levels of `x`.
    """
    out: Tensor = _LeanSoftmax.apply(x, axis, scale.detach(), kind)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _LeanSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, scale: Tensor, kind: IntegerType) -> Tensor:
        ctx.axis, ctx.shift = axis, 0 if kind.qmax < 128 else kind.qmin + 128
        levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        write_levels(x, scale, levels, ctx.shift, is_moved=False)
        ctx.save_for_backward(levels, positive(scale))
        return torch.softmax(x, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        levels, scale = ctx.saved_tensors
        x = levels.float()
        if ctx.shift:
            x.add_(ctx.shift)
        y = torch.softmax(x.mul_(scale), ctx.axis)
        del x
        return torch._softmax_backward_data(grad, y, ctx.axis, y.dtype), None, None, None
