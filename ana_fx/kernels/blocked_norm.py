"""A batch norm and the noisy quantizer behind it, on CPUs: in fewer passes over the numbers than one after the other.

The norm computes y = γ · z + β of standardised numbers z. With γ / step and β / step + offset in their place it gives
the v of `ana_fx.kernels.bins.Bins` at once, and the quantizer makes its output where v lies, which nobody else reads.

The gradient of the scale is Σ grad · output / step − Σ grad_y · y / step. The second sum is Σ γ · grad_γ + Σ β ·
grad_β, of gradients that the norm has anyway; the first needs the output. Where the next layer keeps that, this is the
fastest way; else a byte for each number tells the gradient, as in `ana_fx.kernels.kept_bytes`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ana_fx.kernels.bins import Bins, bins_of
from ana_fx.kernels.blocks import ONE, blocks, flat
from ana_fx.kernels.fused_quantizer import Grid, refuse_graph
from ana_fx.kernels.int8_levels import laid_out
from ana_fx.kernels.kept_bytes import (
    gradient_where_near,
    gradients_from_parts,
    parts_tell,
    write_near,
    write_parts,
)
from ana_fx.numerics.scale_search import one_step

__all__ = ["NormNumbers", "normalize_and_quantize"]


class NormNumbers(NamedTuple):
    """What a batch norm computes with.

    Args:
        weight: γ, [channels].
        bias: β, [channels].
        mean: The running mean, [channels], if there is one; written if `uses_batch`.
        variance: The running variance, likewise.
        uses_batch: Whether mean and variance are those of the batch, not the running ones.
        momentum: The share of a batch in the running ones.
        eps: What is added to the variance.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor | None
    variance: Tensor | None
    uses_batch: bool
    momentum: float
    eps: float


def normalize_and_quantize(
    x: Tensor,
    norm: NormNumbers,
    scale: Tensor,
    noise: tuple[float, float],
    *,
    grid: Grid,
    scale_gradient: float = 1.0,
    output_is_kept: bool = True,
) -> Tensor:
    """What a quantizer makes of what a norm makes of `x`, with its gradients.

    The other arguments are those of `ana_fx.kernels.blocked_quantizer.blocked_fake_quantize`.

    Args:
        x: Float32, [batch, channels, *size].
        norm: The norm.
        scale: Of one step.
        output_is_kept: Whether the next layer keeps the output for backward.
    """
    number, slope, step = one_step(scale.detach())
    bins = bins_of(grid, number, *noise)
    operands = (x, norm.weight, norm.bias, scale)
    if not (torch.is_grad_enabled() and any(each.requires_grad for each in operands)):
        v, *_ = _in_steps(x, norm, step, bins)
        for block, _ in blocks(ONE, v):
            block.floor_().clamp_(bins.lo, bins.hi).mul_(step)
        return v
    keeps_output = scale.requires_grad and (output_is_kept or not parts_tell(bins))
    settings = _Settings(norm, bins, step, number, slope * scale_gradient, keeps_output)
    out: Tensor = _NormalizeAndQuantize.apply(*operands, settings)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out


def _in_steps(x: Tensor, norm: NormNumbers, step: Tensor, bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    """v, as `Bins` says, of what the norm makes of `x`; and what backward of the norm needs of the batch; no graph."""
    line = (norm.weight / step, torch.addcdiv(bins.shift, norm.bias, step))
    running = (norm.mean, norm.variance)
    return torch.native_batch_norm(x, *line, *running, norm.uses_batch, norm.momentum, norm.eps)


class _Settings(NamedTuple):
    """What is no operand.

    Args:
        norm: The norm.
        bins: The quantizer's bins.
        step: Its step, as a tensor.
        number: The step.
        factor: Of the gradient of the scale, which is that of the step.
        keeps_output: Whether backward has the output.
    """

    norm: NormNumbers
    bins: Bins
    step: Tensor
    number: float
    factor: float
    keeps_output: bool


class _NormalizeAndQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, settings: _Settings) -> Tensor:
        norm, bins, step = settings[:3]
        v, *found = _in_steps(x, norm, step, bins)
        byte = torch.empty_like(v, dtype=torch.int8)
        write = write_parts if ctx.needs_input_grad[3] and not settings.keeps_output else write_near
        for block, part, _ in blocks(ONE, v, byte):
            write(block, step, bins, part)
        ctx.settings, ctx.scale_shape = settings, scale.shape
        used = (None, None) if norm.uses_batch else (norm.mean, norm.variance)
        kept = (v, bias) if settings.keeps_output else (None, None)
        ctx.save_for_backward(x, weight, byte, *used, *found, *kept)
        return v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, byte, *statistics, y, bias = ctx.saved_tensors
        norm, bins, _, number, factor, keeps_output = ctx.settings
        *needs, learns_scale, _ = ctx.needs_input_grad
        grad = laid_out(grad, byte.stride())
        of_step = 0.0
        if grad.requires_grad:  # somebody wants gradients of gradients
            refuse_graph(learns_scale=learns_scale)
            grad_v = grad * gradient_where_near(torch.ones_like(grad), byte, bins, x.dtype)
        elif learns_scale and not keeps_output:
            grad_v, of_step = gradients_from_parts(grad, byte, bins, x.dtype)
        else:
            grad_v = gradient_where_near(grad, byte, bins, x.dtype)
        if keeps_output:
            of_output = float(torch.dot(flat(grad), flat(y)))
            needs[1:] = True, True
        del y, byte
        ctx.maybe_clear_saved_tensors()  # before the norm makes a gradient as large, unless the graph is retained
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_v, x, weight, *statistics, norm.uses_batch, norm.eps, needs
        )
        if keeps_output:
            told = float(torch.dot(weight, grad_weight)) + float(torch.dot(bias, grad_bias))
            of_step = (of_output - told) / number
        grad_scale = (
            torch.full(ctx.scale_shape, of_step * factor, dtype=torch.float32, device="cpu") if learns_scale else None
        )
        return grad_x, grad_weight, grad_bias, grad_scale, None
