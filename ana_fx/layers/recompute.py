"""Functions of quantised numbers that keep a byte for each of them for their gradient, on GPUs.

Torch keeps the input or the output, four bytes. Both follow from the levels, so backward computes them again, by the
same kernels from the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ana_fx.kernels.int8_levels import read_levels, write_levels
from ana_fx.kernels.triton_launch import has_kernels
from ana_fx.numerics.integer_type import IntegerType

__all__ = ["recomputed", "recomputes"]

_ALIGNMENT = 16  # bytes; softmax of numbers that start elsewhere may sum in another order


def recomputes(x: Tensor, kind: IntegerType) -> bool:
    """Whether there is something to keep, and kernels for it."""
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and has_kernels(x)
        and x.dtype is torch.float32
        and kind.qmax - kind.qmin < 256
        and x.is_contiguous()
        and x.data_ptr() % _ALIGNMENT == 0
    )


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor, scale: Tensor, kind: IntegerType) -> Tensor:
    """`function(x)`, and its gradient, bit for bit.

    Args:
        function: Of one tensor; it has no parameters, draws no numbers and writes into nothing.
        x: Multiples of the scale, contiguous.
        scale: The scale; no gradient reaches it from here.
        kind: The levels of `x`.
    """
    out: Tensor = _Recomputed.apply(x, function, scale.detach(), kind)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], scale: Tensor, kind: IntegerType) -> Tensor:
        ctx.function, ctx.shift = function, 0 if kind.qmax < 128 else kind.qmin + 128
        levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
        write_levels(x, scale, levels, ctx.shift, is_moved=False)
        ctx.save_for_backward(levels, scale.clone())  # which may be written in this step, as the scale of others
        return function(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        levels, scale = ctx.saved_tensors
        x = read_levels(levels, scale, ctx.shift).requires_grad_()
        with torch.enable_grad():
            y = ctx.function(x)
        return torch.autograd.grad(y, x, grad)[0], None, None, None
