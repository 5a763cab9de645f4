"""What follows an operator for each channel: batch norms, and weight and bias of other norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ana_fx.requantizers.staircase import along

__all__ = ["BatchNorm", "ChannelAffine", "Norm", "gain_and_offset", "standard_numbers"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_NUM_SAMPLES, _REACH = 127, 5.0  # of a standard normal
_NO_SPREAD = 1e-6


class ChannelAffine(nn.Module):
    """weight · x + bias for each channel: what follows a layer or group norm.

    Args:
        weight: [channels].
        bias: [channels], or None for zeros.
        channel_axis: Axis of the channels, −1 for the last.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, channel_axis: int) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.channel_axis = channel_axis

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        axis = self.channel_axis % x.ndim
        y = x * along(self.weight, axis, x.ndim)
        return y if self.bias is None else y + along(self.bias, axis, x.ndim)


Norm = BatchNorm | ChannelAffine


def gain_and_offset(norm: Norm, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and intercept of a line, float64, [channels] or [1], once the norm in eval mode has followed it."""
    if isinstance(norm, ChannelAffine):
        gain, offset = gain * norm.weight.double(), offset * norm.weight.double()
        return gain, offset if norm.bias is None else offset + norm.bias.double()
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = 1.0 / torch.sqrt(variance.double() + norm.eps)
    offset = (offset - mean.double()) * factor
    if norm.affine:
        factor = factor * norm.weight.double()
        offset = offset * norm.weight.double() + norm.bias.double()
    return gain * factor, offset


def standard_numbers(norm: Norm | None) -> tuple[Tensor, Tensor]:
    """What a norm gives out, for each channel a normal of mean β and deviation |γ|: numbers and their weights."""
    grid = torch.linspace(-_REACH, _REACH, _NUM_SAMPLES)
    density = torch.exp(-0.5 * grid * grid)
    if norm is None or norm.weight is None:
        return grid, density
    spread = norm.weight.detach().float().cpu()
    center = torch.zeros_like(spread) if norm.bias is None else norm.bias.detach().float().cpu()
    if float(spread.abs().max()) < _NO_SPREAD and float(center.abs().max()) < _NO_SPREAD:
        spread = torch.ones_like(spread)  # zero-initialised, as in residual networks: it will grow
    numbers = center[:, None] + spread[:, None] * grid
    return numbers.flatten(), density.expand_as(numbers).flatten()
