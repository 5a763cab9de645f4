"""Every layer with windows as a convolution that small kernels know: no groups but depthwise, no dilation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ana_fx.operators.average import Average
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.reduce import Reduce

__all__ = ["PlainConvolution", "plain_convolution"]


@dataclass(frozen=True)
class PlainConvolution:
    """A convolution whose weight is [out, in, *kernel], or [channels, 1, *kernel] if depthwise.

    Args:
        weight: Integers.
        stride: For each spatial axis.
        padding: (before, after) for each spatial axis.
        is_depthwise: Whether each channel has a kernel of its own.
    """

    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    is_depthwise: bool

    @property
    def groups(self) -> int:
        """As ONNX counts them."""
        return len(self.weight) if self.is_depthwise else 1

    def attributes(self) -> dict[str, Any]:
        """Those of ONNX's Conv."""
        befores, afters = zip(*self.padding, strict=True)
        return {
            "dilations": [1] * len(self.stride),
            "group": self.groups,
            "kernel_shape": list(self.weight.shape[2:]),
            "pads": [*befores, *afters],
            "strides": list(self.stride),
        }


def plain_convolution(operator: Operator, weight: Tensor | None, shape: tuple[int, ...]) -> PlainConvolution | None:
    """A convolution, an average, a sum over all spatial axes or the identity as a plain convolution.

    Args:
        operator: The map.
        weight: Its integer coefficients, or None.
        shape: Sample shape of the input, [channels, *sizes].

    Returns:
        The convolution, with stride 1 where there is one window; None if the map is none of these.
    """
    conv = _convolution(operator, weight, shape)
    if conv is None:
        return None
    reaches = [size + sum(pads) for size, pads in zip(shape[1:], conv.padding, strict=True)]
    once = [reach == kernel for reach, kernel in zip(reaches, conv.weight.shape[2:], strict=True)]
    return replace(conv, stride=tuple(1 if one else step for one, step in zip(once, conv.stride, strict=True)))


def _convolution(operator: Operator, weight: Tensor | None, shape: tuple[int, ...]) -> PlainConvolution | None:
    form = _FORMS.get(type(operator))
    return form(operator, weight, shape) if form else None


def _trained(operator: Convolution, weight: Tensor, shape: tuple[int, ...]) -> PlainConvolution:
    return _without_groups(operator, weight, shape[0])


def _average(operator: Average, weight: None, shape: tuple[int, ...]) -> PlainConvolution | None:
    window = operator.window((1, *shape))
    if window is None:
        return None
    kernel, stride, padding = window
    return _ones(shape[0], kernel, stride, tuple((pad, pad) for pad in padding))


def _reduction(operator: Reduce, weight: None, shape: tuple[int, ...]) -> PlainConvolution | None:
    channels, *sizes = shape or (1,)
    rank = len(sizes)
    if not rank or sorted(operator.axes) != list(range(2, 2 + rank)):
        return None
    return _ones(channels, tuple(sizes), (1,) * rank, ((0, 0),) * rank)


def _identity(operator: Identity, weight: None, shape: tuple[int, ...]) -> PlainConvolution | None:
    rank = len(shape) - 1
    return _ones(shape[0], (1,) * rank, (1,) * rank, ((0, 0),) * rank) if rank > 0 else None


_FORMS: dict[type, Callable[..., PlainConvolution | None]] = {
    Average: _average,
    Convolution: _trained,
    Identity: _identity,
    Reduce: _reduction,
}


def _ones(
    channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[tuple[int, int], ...]
) -> PlainConvolution:
    weight = torch.ones((channels, 1, *kernel), dtype=torch.int8)
    return PlainConvolution(weight, stride, padding, channels > 1)


def _without_groups(operator: Convolution, weight: Tensor, channels: int) -> PlainConvolution:
    weight = _undilated(weight.cpu(), operator.dilation)
    is_depthwise = operator.groups == channels == len(weight) > 1
    if operator.groups > 1 and not is_depthwise:
        dense = weight.new_zeros((len(weight), channels, *weight.shape[2:]))
        outputs, inputs = len(weight) // operator.groups, weight.shape[1]
        for group in range(operator.groups):
            rows, columns = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
            dense[rows, columns] = weight[rows]
        weight = dense
    return PlainConvolution(weight, operator.stride, operator.padding, is_depthwise)


def _undilated(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """The kernel with zeros where a dilated one has gaps."""
    if set(dilation) == {1}:
        return weight
    reach = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], dilation, strict=True)]
    wide = weight.new_zeros((*weight.shape[:2], *reach))
    places = (slice(None), slice(None), *(slice(None, None, step) for step in dilation))
    wide[places] = weight
    return wide
