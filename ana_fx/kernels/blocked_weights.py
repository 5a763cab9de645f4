"""The weights of many layers quantised at once, on CPUs: what `ana_fx.kernels.blocked_quantizer` computes.

A small weight takes some microseconds, and what calls for that from Python twenty times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ana_fx.kernels.bins import Bins
from ana_fx.kernels.fused_quantizer import refuse_graph
from ana_fx.numerics.scale_search import all_positive, slopes_of_positive

__all__ = ["quantize_on_cpu"]


def quantize_on_cpu(
    weights: Sequence[Tensor], scales: Sequence[Tensor], bins: Sequence[Bins], scale_gradients: Sequence[float]
) -> tuple[Tensor, ...]:
    """The weights as their quantizers give them, with the gradients of weights and scales.

    Args:
        weights: Parameters.
        scales: One of each; they broadcast against the weights.
        bins: Whole ones, of each weight.
        scale_gradients: The factor of the gradient of each scale.
    """
    tensors = (*weights, *scales)
    outputs: tuple[Tensor, ...] = _QuantizeWeights.apply(bins, scale_gradients, *tensors)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return outputs


class _QuantizeWeights(torch.autograd.Function):
    """Keeps nothing for backward but the steps: the weights are still there."""

    @staticmethod
    def forward(
        ctx: Any, bins: Sequence[Bins], scale_gradients: Sequence[float], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        weights, scales = tensors[: len(bins)], tensors[len(bins) :]
        steps = all_positive(scales)
        ctx.bins, ctx.scale_gradients = bins, scale_gradients
        ctx.save_for_backward(*tensors, *(steps if steps is not scales else ()))
        y = torch._foreach_div(weights, steps)
        torch._foreach_add_(y, [each.shift for each in bins])
        torch._foreach_floor_(y)
        for each, own in zip(y, bins, strict=True):
            each.clamp_(own.lo, own.hi)
        torch._foreach_mul_(y, steps)
        return tuple(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        bins, number = ctx.bins, len(ctx.bins)
        saved = ctx.saved_tensors  # torch checks that no weight was written
        weights, scales = saved[:number], saved[number : 2 * number]
        steps = saved[2 * number :] or scales
        learns_scale = any(ctx.needs_input_grad[2 + number :])
        if any(grad.requires_grad for grad in grads):  # somebody wants gradients of gradients
            refuse_graph(learns_scale=learns_scale)
        with torch.no_grad():
            offsets = [each.shift for each in bins]
            v = torch._foreach_div(weights, steps)
            torch._foreach_add_(v, offsets)
            clipped = [each.clamp(own.lower, own.upper) for each, own in zip(v, bins, strict=True)]
            slopes = [each.eq_(other) for each, other in zip(v, clipped, strict=True)]
            if any(each.height != 1.0 for each in bins):
                torch._foreach_mul_(slopes, [each.height for each in bins])
        if not learns_scale:
            return None, None, *torch._foreach_mul(grads, slopes), *(None,) * number
        with torch.no_grad():
            by_step = torch._foreach_floor(clipped)
            torch._foreach_sub_(clipped, offsets)
            torch._foreach_addcmul_(by_step, clipped, slopes, value=-1.0)
            torch._foreach_mul_(by_step, grads)
            torch._foreach_mul_(slopes, grads)
            grad_scales = [each.sum_to_size(scale.shape) for each, scale in zip(by_step, scales, strict=True)]
            torch._foreach_mul_(grad_scales, ctx.scale_gradients)
            if steps is not scales:
                torch._foreach_mul_(grad_scales, slopes_of_positive(scales, steps))
        return None, None, *slopes, *grad_scales
