"""The part of the gradient of a learned scale that a batch norm tells, on CPUs.

The scale of a quantizer gets Σ grad · y / scale − Σ grad_x · x / scale: for the second sum a training step would keep
what the quantizer reads, four bytes a number. If that comes from a batch norm, x = γ · z + β, the sum is Σ γ · grad_γ +
Σ β · grad_β, of gradients that the norm computes anyway, so nothing is kept and next to nothing computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.scale_search import positive, slope_of_positive

__all__ = ["normalized_and_quantized", "tells_scale"]


def tells_scale(norm: nn.Module, x: Tensor, quantizer: Quantizer) -> bool:
    """Whether the norm of `x`, which the quantizer reads, can tell a part of the gradient of its scale.

    Of halves it cannot: the gradients of γ and β would be rounded more than the difference of the two sums allows.
    """
    return (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and {"weight", "bias"} <= {name for name, own in norm._parameters.items() if own is not None}  # not computed
        and not norm._forward_hooks  # they may change what it gives
        and quantizer.scale.requires_grad
        and quantizer.takes_gradient_of_norms
        and not (quantizer._forward_hooks or quantizer._forward_pre_hooks)  # they belong to its call
        and x.is_cpu
        and x.dtype is torch.float32
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def normalized_and_quantized(norm: nn.Module, x: Tensor, quantizer: Quantizer) -> Tensor:
    """`quantizer(norm(x))`, with its gradients; float32, shaped as `x`.

    Args:
        norm: An affine batch norm.
        x: What it reads; `tells_scale` of the three holds.
        quantizer: Its scale is one number and learns.
    """
    factor = quantizer.scale_gradient(x)
    weight, bias = _Parts.apply(norm.weight, norm.bias, quantizer.scale, factor)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with _in_place_of_parameters(norm, weight, bias):
        y = norm(x)
    return quantizer.quantized_behind_norm(y)


@contextmanager
def _in_place_of_parameters(norm: nn.Module, weight: Tensor, bias: Tensor) -> Iterator[None]:
    """Let a norm compute with these; as `torch.func.functional_call`, in a third of the time.

    A module looks for its parameters where it has no attribute of that name.
    """
    attributes = vars(norm)
    attributes["weight"], attributes["bias"] = weight, bias
    try:
        yield
    finally:
        del attributes["weight"], attributes["bias"]


class _Parts(torch.autograd.Function):
    """γ and β as they are; backward, the part of the scale's gradient that theirs tell."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, scale: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        ctx.factor = factor
        ctx.save_for_backward(weight, bias, scale)
        return weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    def backward(ctx: Any, grad_weight: Tensor, grad_bias: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, scale = ctx.saved_tensors
        told = torch.dot(weight, grad_weight).add_(torch.dot(bias, grad_bias))
        grad_scale = told.mul_(-ctx.factor).div_(positive(scale)).mul_(slope_of_positive(scale))
        return grad_weight, grad_bias, grad_scale.reshape(scale.shape), None
