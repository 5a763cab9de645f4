"""The weights of many layers quantised by one kernel, on GPUs.

A weight takes a GPU some microseconds and the host that launches its kernels ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ana_fx.kernels.fused_quantizer import Grid
from ana_fx.kernels.triton_launch import launch

__all__ = ["Layout", "quantize_together"]

_BLOCK = 1024
_APART = 64  # numbers between the starts of two tensors are a multiple of it, as where each is allocated for itself


@dataclass(frozen=True)
class Layout:
    """Where numbers lie: those of the layers, and in the buffers that hold all of them.

    Args:
        addresses: Of all tensors that this was computed from.
        shapes: Of the weights.
        strides: Likewise.
        starts: Of each weight in the buffers; last their size.
        pointers: Int64, [weights, 7]: weight, scale, mean, std, numbers, numbers in a row, start.
        grids: Float32, [weights, 6], as `ana_fx.kernels.fused_quantizer.Grid`, and the factor of the scale's gradient.
        blocks: Int64, [blocks, 2]: the weight that a program works on, and its first number.
    """

    addresses: list[int]
    shapes: list[torch.Size]
    strides: list[tuple[int, ...]]
    starts: list[int]
    pointers: Tensor
    grids: Tensor
    blocks: Tensor

    @classmethod
    def of(
        cls,
        grids: Sequence[Grid],
        scale_gradients: Sequence[float],
        sources: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        addresses: list[int],
    ) -> Layout:
        """The layout of weights, with one copy to the GPU for each of the three tables.

        Args:
            grids: Of each weight's quantizer.
            scale_gradients: The factor of the gradient of each scale.
            sources: Each weight with the scale, the mean and the standard deviation of its quantizer.
            addresses: Of all these tensors.
        """
        starts, rows, blocks = [0], [], []
        for index, (weight, scale, mean, std) in enumerate(sources):
            size = weight.numel()
            at = [tensor.data_ptr() for tensor in (weight, scale, mean, std)]
            rows.append([*at, size, size // scale.numel(), starts[-1]])
            blocks += [[index, first] for first in range(0, size, _BLOCK)]
            starts.append(starts[-1] + -(-size // _APART) * _APART)
        device = sources[0][0].device
        rows_of_grids = [[*map(float, grid), factor] for grid, factor in zip(grids, scale_gradients, strict=True)]
        pointers, grid_table, block_table = (
            torch.tensor(table, dtype=dtype, device=device)
            for table, dtype in ((rows, torch.int64), (rows_of_grids, torch.float32), (blocks, torch.int64))
        )
        shapes = [weight.shape for weight, *_ in sources]
        strides = [torch.empty(shape, device="meta").stride() for shape in shapes]  # axes of size 1 may have others
        return cls(addresses, shapes, strides, starts, pointers, grid_table, block_table)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The part of a buffer that belongs to each weight, in its shape."""
        return [
            buffer.as_strided(shape, strides, start)
            for shape, strides, start in zip(self.shapes, self.strides, self.starts, strict=False)
        ]


def quantize_together(
    weights: Sequence[Tensor], scales: Sequence[Tensor], layout: Layout, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The weights as their quantizers give them, rounded to `dtype`, from one kernel; scales get gradients too."""
    outputs: tuple[Tensor, ...] = _QuantizeTogether.apply(layout, dtype, *weights, *scales)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return outputs


class _QuantizeTogether(torch.autograd.Function):
    """Keeps nothing for backward but the noise of each layer: the weights are still there."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        device = tensors[0].device
        y = torch.empty(layout.starts[-1], dtype=dtype, device=device)
        noise = torch.empty((len(layout.shapes), 2), dtype=torch.float32, device=device)
        _run(layout, noise, y, None, is_backward=False)
        ctx.save_for_backward(noise, *tensors)
        ctx.layout = layout
        return tuple(layout.views(y))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        noise, *tensors = ctx.saved_tensors  # torch checks that no weight was written
        layout, scales = ctx.layout, tensors[len(grads) :]
        learns_scale = any(ctx.needs_input_grad[2 + len(grads) :])
        slope = torch.empty(layout.starts[-1], dtype=torch.float32, device=noise.device)
        by_scale = torch.empty_like(slope) if learns_scale else None
        _run(layout, noise, slope, by_scale, is_backward=True)
        grad_weights = torch._foreach_mul(grads, layout.views(slope))
        if by_scale is None:
            return None, None, *grad_weights, *(None,) * len(scales)
        products = torch._foreach_mul(grads, layout.views(by_scale))
        grad_scales = (each.float().sum_to_size(scale.shape) for each, scale in zip(products, scales, strict=True))
        return None, None, *grad_weights, *grad_scales


def _run(layout: Layout, noise: Tensor, result: Tensor, by_scale: Tensor | None, *, is_backward: bool) -> None:
    from ana_fx.kernels import triton_kernels as kernels

    tensors = (layout.pointers, layout.grids, layout.blocks, noise, result, result if by_scale is None else by_scale)
    grid, constants = (len(layout.blocks), 1, 1), (is_backward, by_scale is not None, _BLOCK)
    launch(kernels.quantize_many, grid, tensors, (), constants, result.dtype, num_warps=4, enable_fp_fusion=False)
