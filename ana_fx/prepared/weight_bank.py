"""The weights of all layers quantised by one kernel, before the layers run.

A layer's weight takes a GPU some microseconds and the host that launches its kernels ten times as long; a network has
a hundred of them. So a hook of the model quantises them together, for training on a GPU in one process: several
processes exchange the gradients of the last layers while those of the first are still computed, and these would come
all at once. Where the hook does not run, in copies of the model, each layer quantises its own weight, with the same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.graph import calls_of
from ana_fx.kernels.fused_quantizer import is_fused
from ana_fx.kernels.triton_launch import launch
from ana_fx.layers.layer_map import Phase
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer

__all__ = ["Layout", "WeightBank", "quantize_together"]

_BLOCK = 1024
_APART = 64  # numbers between the starts of two tensors are a multiple of it, as where each is allocated for itself


class WeightBank:
    """A hook before the forward pass of a prepared model."""

    def __init__(self) -> None:
        self._layer_maps: list[OperatorMap] | None = None
        self._layout: Layout | None = None

    def __call__(self, gm: GraphModule, _inputs: Any) -> None:
        """Hand each layer map that learns its quantised weight, if the model trains on one GPU."""
        if torch.compiler.is_compiling() or not gm.training or not torch.is_grad_enabled():
            return
        if self._layer_maps is None:
            called = dict.fromkeys(layer_map for _, layer_map in calls_of(gm, OperatorMap))
            self._layer_maps = [layer_map for layer_map in called if layer_map.weight_quantizer is not None]
        if not self._layer_maps or not self._layer_maps[0].weight.is_cuda:  # type: ignore[union-attr]  # they have weights
            return
        if torch._C._are_functorch_transforms_active() or (dist.is_available() and dist.is_initialized()):
            return
        chosen = [each for each in self._layer_maps if _takes_part(each)]
        if len(chosen) < 2:
            return
        is_cast = torch.is_autocast_enabled("cuda")
        outputs = self._quantized(chosen, torch.get_autocast_dtype("cuda") if is_cast else torch.float32)
        for layer_map, quantized in zip(chosen, outputs, strict=True):
            layer_map.hand_weight(quantized)

    def _quantized(self, chosen: Sequence[OperatorMap], dtype: torch.dtype) -> tuple[Tensor, ...]:
        sources = [_sources(layer_map) for layer_map in chosen]
        addresses = [tensor.data_ptr() for tensors in sources for tensor in tensors]
        layout = self._layout
        if layout is None or layout.addresses != addresses:
            layout = self._layout = Layout.of(chosen, sources, addresses)
        return quantize_together([weight for weight, *_ in sources], layout, dtype)


def _sources(layer_map: OperatorMap) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, scale, mean and standard deviation; looked up where modules keep them, which is faster."""
    quantizer = layer_map._modules["weight_quantizer"]
    weight, scale = layer_map._parameters["weight"], quantizer._parameters["scale"]  # type: ignore[union-attr]  # chosen for it
    mean, std = quantizer._buffers["mean"], quantizer._buffers["std"]  # type: ignore[union-attr]  # likewise
    return weight, scale, mean, std  # type: ignore[return-value]  # none is None


def _takes_part(layer_map: OperatorMap) -> bool:
    """Whether a kernel quantises its weight, which learns while its scale does not."""
    weight, quantizer = layer_map._parameters.get("weight"), layer_map._modules["weight_quantizer"]
    if (
        not layer_map.training
        or layer_map.phase is not Phase.LEARNING
        or weight is None
        or not weight.requires_grad
        or not weight.is_contiguous()
    ):
        return False
    assert isinstance(quantizer, Quantizer)
    if quantizer.integer_type.levels:  # a codebook's levels are compared one by one
        return False
    if quantizer._parameters["scale"].requires_grad or not quantizer.is_calibrated:  # type: ignore[union-attr]  # it has one
        return False
    if quantizer._forward_hooks or quantizer._forward_pre_hooks or weight.dtype != torch.float32:
        return False
    return is_fused(weight, quantizer.noise, quantizer.strategy, quantizer.num_neighbours, quantizer.gradient)


@dataclass(frozen=True)
class Layout:
    """Where numbers lie: those of the layers, and in the buffers that hold all of them.

    Args:
        addresses: Of all tensors that this was computed from.
        shapes: Of the weights.
        strides: Likewise.
        starts: Of each weight in the buffers; last their size.
        pointers: Int64, [weights, 7]: weight, scale, mean, std, numbers, numbers in a row, start.
        grids: Float32, [weights, 5], as `ana_fx.kernels.fused_quantizer.Grid`.
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
        chosen: Sequence[OperatorMap],
        sources: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
        addresses: list[int],
    ) -> Layout:
        """The layout of these weights, with one copy to the GPU for each of the three tables."""
        starts, rows, blocks, grids = [0], [], [], []
        for index, (layer_map, (weight, scale, mean, std)) in enumerate(zip(chosen, sources, strict=True)):
            size = weight.numel()
            at = [tensor.data_ptr() for tensor in (weight, scale, mean, std)]
            rows.append([*at, size, size // scale.numel(), starts[-1]])
            blocks += [[index, first] for first in range(0, size, _BLOCK)]
            starts.append(starts[-1] + -(-size // _APART) * _APART)
            assert layer_map.weight_quantizer is not None
            grids.append([float(number) for number in layer_map.weight_quantizer.grid()])
        device = sources[0][0].device
        pointers, grid_table, block_table = (
            torch.tensor(table, dtype=dtype, device=device)
            for table, dtype in ((rows, torch.int64), (grids, torch.float32), (blocks, torch.int64))
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


def quantize_together(weights: Sequence[Tensor], layout: Layout, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The weights as their quantizers give them, rounded to `dtype`, from one kernel."""
    outputs: tuple[Tensor, ...] = _QuantizeTogether.apply(layout, dtype, *weights)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return outputs


class _QuantizeTogether(torch.autograd.Function):
    """Keeps nothing for backward but the noise of each layer: the weights are still there."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        device = weights[0].device
        y = torch.empty(layout.starts[-1], dtype=dtype, device=device)
        noise = torch.empty((len(weights), 2), dtype=torch.float32, device=device)
        _run(layout, y, noise, is_backward=False)
        ctx.save_for_backward(noise, *weights)
        ctx.layout = layout
        return tuple(layout.views(y))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        noise, *_ = ctx.saved_tensors  # torch checks that no weight was written
        slope = torch.empty(ctx.layout.starts[-1], dtype=torch.float32, device=noise.device)
        _run(ctx.layout, slope, noise, is_backward=True)
        return None, None, *torch._foreach_mul(grads, ctx.layout.views(slope))


def _run(layout: Layout, result: Tensor, noise: Tensor, *, is_backward: bool) -> None:
    from ana_fx.kernels import triton_kernels as kernels

    tensors = (layout.pointers, layout.grids, layout.blocks, noise, result)
    grid, constants = (len(layout.blocks), 1, 1), (is_backward, _BLOCK)
    launch(kernels.quantize_many, grid, tensors, (), constants, result.dtype, num_warps=4, enable_fp_fusion=False)
