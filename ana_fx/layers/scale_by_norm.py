"""The gradient of a learned scale of which a batch norm tells a part, on CPUs.

The scale of a quantizer gets Σ grad · y / scale − Σ grad_x · x / scale. If what it reads comes from a batch norm, x =
γ · z + β, the second sum is Σ γ · grad_γ + Σ β · grad_β, of gradients that the norm computes anyway. The first needs y:
where the next layer keeps that anyway, this is the fastest way to the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ana_fx.kernels.blocked_quantizer import QuantizersPart
from ana_fx.layers.quantizers import Quantizer

__all__ = ["NormsParameters", "normalized_and_quantized", "norms_parameters", "takes_part", "tells_scale"]


class NormsParameters(NamedTuple):
    """The parameters of a batch norm, whose gradients tell that of a scale.

    Args:
        weight: γ, [channels].
        bias: β, [channels].
        quantizers_part: Where the quantizer leaves its part of that gradient.
    """

    weight: Tensor
    bias: Tensor
    quantizers_part: QuantizersPart


def tells_scale(norm: nn.Module, quantizer: Quantizer) -> bool:
    """Whether the norm before a quantizer can tell a part of the gradient of its scale, of float32 numbers on a CPU.

    Of halves it cannot: the gradients of γ and β would be rounded more than the difference of the two sums allows.
    """
    return (
        quantizer.leaves_part_to_norm
        and isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and norm._parameters.get("weight") is not None  # nor computed
        and norm._parameters.get("bias") is not None
        and not norm._forward_hooks  # they may change what it gives
        and not (quantizer._forward_hooks or quantizer._forward_pre_hooks)  # they belong to its call
    )


def takes_part(quantizer: Quantizer, x: Tensor) -> bool:
    """Whether the quantizer of `x` can leave a part of the gradient to the norm before it."""
    return x.dtype is torch.float32 and torch.is_grad_enabled() and quantizer.is_blocked(x)


def norms_parameters(norms: Sequence[nn.Module], quantizers: Sequence[Quantizer]) -> list[NormsParameters]:
    """The parameters of affine batch norms, whose gradients tell those of the scales behind them.

    Args:
        norms: Norms, for each of which with its quantizer `tells_scale` holds.
        quantizers: A quantizer for each; of one scale, for the next call of each.
    """
    weights, biases = [norm.weight for norm in norms], [norm.bias for norm in norms]
    parts = [QuantizersPart() for _ in norms]
    scales = [quantizer.scale for quantizer in quantizers]
    tensors = _Parts.apply(parts, *weights, *biases, *scales)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return list(map(NormsParameters, tensors[: len(norms)], tensors[len(norms) :], parts))


def normalized_and_quantized(norm: nn.Module, x: Tensor, quantizer: Quantizer, parameters: NormsParameters) -> Tensor:
    """`quantizer(norm(x))`, with its gradients; float32, shaped as `x`.

    Args:
        norm: A batch norm.
        x: What it reads; `takes_part` holds.
        quantizer: Its scale is one number and learns.
        parameters: What `norms_parameters` made of the norm's.
    """
    attributes = vars(norm)  # a module looks for a parameter where it has no attribute of that name
    attributes["weight"], attributes["bias"], quantizers_part = parameters
    try:
        y = norm(x)  # as by torch.func.functional_call, in a third of the time
    finally:
        del attributes["weight"], attributes["bias"]
    return quantizer.quantized_behind_norm(y, quantizers_part)


class _Parts(torch.autograd.Function):
    """γ and β as they are; backward, the gradients of the scales."""

    @staticmethod
    def forward(ctx: Any, parts: Sequence[QuantizersPart], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.parts = parts
        ctx.save_for_backward(*tensors)
        return tuple(tensor.view_as(tensor) for tensor in tensors[: 2 * len(parts)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        parameters, scales = saved[: len(grads)], saved[len(grads) :]
        told = [float(torch.dot(parameter, grad)) for parameter, grad in zip(parameters, grads, strict=True)]
        of_scales = [
            part.factor * (part.value - (of_weight + of_bias) / part.step)
            for part, of_weight, of_bias in zip(ctx.parts, told[: len(scales)], told[len(scales) :], strict=True)
        ]
        apart = torch.tensor(of_scales).unbind()
        return None, *grads, *(number.reshape(scale.shape) for number, scale in zip(apart, scales, strict=True))
