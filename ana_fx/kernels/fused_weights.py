"""The weights of many layers quantised by one kernel, on GPUs.

A weight takes a GPU some microseconds and the host that launches its kernels ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.fused_quantizer import Grid, refuse_graph
from ana_fx.kernels.triton_launch import launch

__all__ = ["Layout", "quantize_together"]

_BLOCK = 1024
_SEGMENT = 8 * _BLOCK  # numbers that one program adds up
_APART = 64  # numbers between the starts of two tensors are a multiple of it, as where each is allocated for itself


@dataclass(frozen=True)
class _Places:
    """Where tensors lie in a buffer that holds all of them.

    Args:
        shapes: Of the tensors.
        strides: Likewise.
        starts: Of each tensor; last their size together.
    """

    shapes: list[torch.Size]
    strides: list[tuple[int, ...]]
    starts: list[int]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], apart: int) -> _Places:
        """One behind the other, each starting at a multiple of `apart`."""
        shapes = [tensor.shape for tensor in tensors]
        strides = [torch.empty(shape, device="meta").stride() for shape in shapes]  # axes of size 1 may have others
        return cls(shapes, strides, [*accumulate((-(-x.numel() // apart) * apart for x in tensors), initial=0)])

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The part of a buffer that belongs to each tensor, in its shape."""
        return [
            buffer.as_strided(shape, strides, start)
            for shape, strides, start in zip(self.shapes, self.strides, self.starts, strict=False)
        ]


@dataclass(frozen=True)
class Layout:
    """Where numbers lie: those of the layers, and in the buffers that hold all of them.

    Args:
        addresses: Of all tensors that this was computed from.
        weights: Where the weights lie in a buffer.
        scales: Where the scales do, in another.
        pointers: Int64, [weights, 7]: weight, scale, mean, std, numbers, numbers in a row, start.
        grids: Float32, [weights, 6], as `ana_fx.kernels.fused_quantizer.Grid`, and the factor of the scale's gradient.
        blocks: Int64, [blocks, 2]: the weight that a program works on, and its first number.
        segments: Int64, [segments, 2]: where a part of a row starts in a buffer of weights, and its numbers.
        rows: Int64, [rows, 2]: the first segment of a row, and how many it has.
    """

    addresses: list[int]
    weights: _Places
    scales: _Places
    pointers: Tensor
    grids: Tensor
    blocks: Tensor
    segments: Tensor
    rows: Tensor

    @classmethod
    def of(
        cls,
        grids: Sequence[Grid],
        scale_gradients: Sequence[float],
        sources: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        addresses: list[int],
    ) -> Layout:
        """The layout of weights, with one copy to the GPU for each of the five tables.

        Args:
            grids: Of each weight's quantizer.
            scale_gradients: The factor of the gradient of each scale.
            sources: Each weight with the scale, the mean and the standard deviation of its quantizer.
            addresses: Of all these tensors.
        """
        weights = _Places.of([weight for weight, *_ in sources], _APART)
        scales = _Places.of([scale for _, scale, *_ in sources], 1)
        pointers, blocks, segments, rows = [], [], [], []
        num_segments = 0
        for index, (tensors, start) in enumerate(zip(sources, weights.starts, strict=False)):
            size, num_rows = tensors[0].numel(), tensors[1].numel()
            row_size = size // num_rows
            pointers.append([*(tensor.data_ptr() for tensor in tensors), size, row_size, start])
            blocks += [[index, first] for first in range(0, size, _BLOCK)]
            row_starts, in_row = torch.arange(num_rows) * row_size + start, torch.arange(0, row_size, _SEGMENT)
            starts, sizes = row_starts[:, None] + in_row, (row_size - in_row).clamp(max=_SEGMENT).expand(num_rows, -1)
            segments.append(torch.stack((starts, sizes), -1).flatten(0, 1))
            first_segments = torch.arange(num_rows) * len(in_row) + num_segments
            rows.append(torch.stack((first_segments, torch.full_like(first_segments, len(in_row))), -1))
            num_segments += len(segments[-1])
        device = sources[0][0].device
        rows_of_grids = [[*map(float, grid), factor] for grid, factor in zip(grids, scale_gradients, strict=True)]
        return cls(
            addresses,
            weights,
            scales,
            torch.tensor(pointers, device=device),
            torch.tensor(rows_of_grids, dtype=torch.float32, device=device),
            torch.tensor(blocks, device=device),
            torch.cat(segments).to(device),
            torch.cat(rows).to(device),
        )


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
        y = torch.empty(layout.weights.starts[-1], dtype=dtype, device=device)
        noise = torch.empty((len(layout.pointers), 2), dtype=torch.float32, device=device)
        _run(layout, noise, y, None, is_backward=False)
        ctx.save_for_backward(noise, *tensors)
        ctx.layout = layout
        return tuple(layout.weights.views(y))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        noise, *tensors = ctx.saved_tensors  # torch checks that no weight was written
        layout, scales = ctx.layout, tensors[len(grads) :]
        learns_scale = any(ctx.needs_input_grad[2 + len(grads) :])
        slope = torch.empty(layout.weights.starts[-1], dtype=torch.float32, device=noise.device)
        by_scale = torch.empty_like(slope) if learns_scale else None
        _run(layout, noise, slope, by_scale, is_backward=True)
        if any(grad.requires_grad for grad in grads):  # somebody wants gradients of gradients
            refuse_graph(learns_scale=learns_scale)
        grad_weights = torch._foreach_mul(grads, layout.weights.views(slope))
        if by_scale is None:
            return None, None, *grad_weights, *(None,) * len(scales)
        torch._foreach_mul_(layout.weights.views(by_scale), grads)
        return None, None, *grad_weights, *layout.scales.views(_row_sums(layout, by_scale))


def _run(layout: Layout, noise: Tensor, result: Tensor, by_scale: Tensor | None, *, is_backward: bool) -> None:
    from ana_fx.kernels import triton_kernels as kernels

    tensors = (layout.pointers, layout.grids, layout.blocks, noise, result, result if by_scale is None else by_scale)
    grid, constants = (len(layout.blocks), 1, 1), (is_backward, by_scale is not None, _BLOCK)
    launch(kernels.quantize_many, grid, tensors, (), constants, result.dtype, num_warps=4, enable_fp_fusion=False)


def _row_sums(layout: Layout, products: Tensor) -> Tensor:
    """The sum of each row of all weights, float32, [rows]."""
    sums = _sums(products, layout.segments)
    return sums if len(layout.segments) == len(layout.rows) else _sums(sums, layout.rows)


def _sums(x: Tensor, parts: Tensor) -> Tensor:
    """The sums of parts of a buffer, each given by its start and its size; float32, [parts]."""
    from ana_fx.kernels import triton_kernels as kernels

    sums = torch.empty(len(parts), dtype=torch.float32, device=x.device)
    grid = (len(parts), 1, 1)
    launch(kernels.sum_parts, grid, (x, parts, sums), (), (_BLOCK,), None, num_warps=4, enable_fp_fusion=False)
    return sums
