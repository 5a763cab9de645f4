"""A batch norm and the quantizer behind it, computed as one where that is faster: on CPUs, in training."""

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
        and quantizer.is_blocked(x)
        and quantizer.is_calibrated
        and quantizer.numbers()[0].numel() == 1
        and norm._parameters.get("weight") is not None  # nor computed
        and norm._parameters.get("bias") is not None
        and norm._buffers.get("num_batches_tracked") is not None  # nor without statistics
        and bool(norm.track_running_stats)
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
    parameters, buffers, momentum = norm._parameters, norm._buffers, norm.momentum
    if norm.training:
        number = buffers["num_batches_tracked"]
        assert number is not None
        number.add_(1)
        momentum = 1.0 / float(number) if momentum is None else momentum
    numbers = NormNumbers(
        parameters["weight"],  # type: ignore[arg-type]  # none is None: `are_one` has asked
        parameters["bias"],  # type: ignore[arg-type]  # likewise
        buffers["running_mean"],
        buffers["running_var"],
        norm.training,
        momentum or 0.0,
        norm.eps,
    )
    return quantizer.behind_norm(x, numbers)
