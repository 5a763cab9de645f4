"""A batch norm and the quantizer behind it, computed as one where that is faster: on CPUs, while they learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ana_fx.kernels.blocked_norm import NormNumbers
from ana_fx.layers.hooks import is_hooked
from ana_fx.layers.quantizers import Quantizer

__all__ = ["are_one", "normalized_and_quantized"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def are_one(norm: nn.Module, quantizer: Quantizer, x: Tensor) -> bool:
    """Whether a norm and the quantizer behind it can be computed as one.

    Of halves they are not: the gradients of γ and β would be rounded more than that of the scale, a difference of two
    sums, allows. Nor is a batch of one number for each channel, which the norm itself refuses.
    """
    return (
        type(norm) in _NORMS
        and type(quantizer) is Quantizer
        and x.dtype is torch.float32
        and torch.is_grad_enabled()
        and quantizer.is_blocked(x)
        and quantizer.is_calibrated
        and quantizer.scale.numel() == 1
        and not any(tensor is None for tensor in _tensors(norm))
        and x.numel() > x.shape[1]
        and not is_hooked(norm)
        and not is_hooked(quantizer)
    )


def normalized_and_quantized(norm: nn.Module, x: Tensor, quantizer: Quantizer) -> Tensor:
    """`quantizer(norm(x))`, with its gradients; float32, shaped as `x`.

    Args:
        norm: A batch norm.
        x: What it reads; `are_one` holds.
        quantizer: What reads the norm.
    """
    assert isinstance(norm, _NORMS)
    norm._check_input_dim(x)
    weight, bias, mean, variance, num_batches = _tensors(norm)
    momentum = norm.momentum
    if norm.training:
        num_batches.add_(1)
        momentum = 1.0 / float(num_batches) if momentum is None else momentum
    return quantizer.behind_norm(x, NormNumbers(weight, bias, mean, variance, norm.training, momentum or 0.0, norm.eps))


def _tensors(norm: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """γ, β, and the statistics; looked up where modules keep them, without those that are computed or left out."""
    of, has = norm._parameters.get, norm._buffers.get
    return of("weight"), of("bias"), has("running_mean"), has("running_var"), has("num_batches_tracked")  # type: ignore[return-value]  # `are_one` asks for None
