"""A convolution or a linear layer as rows of a matrix: what each output is a weighted sum of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.spread_samples import spread_stride
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear

__all__ = ["has_patches", "patches", "rows_of"]


def has_patches(layer_map: OperatorMap) -> bool:
    """Whether the outputs of a layer map are weighted sums of patches of its input."""
    return type(layer_map.operator) in _PATCHES


def patches(layer_map: OperatorMap, x: Tensor, wanted: int) -> Tensor:
    """Take some patches of an input, [groups, samples, inputs].

    Args:
        layer_map: One that `has_patches`.
        x: What it reads.
        wanted: About how many; they are spread evenly over samples and positions.
    """
    operator, weight = layer_map.operator, layer_map.weight
    assert weight is not None
    found = _PATCHES[type(operator)](operator, weight, x)
    chosen = _chosen(found.shape[: 1 + operator.num_spatial_axes], wanted)
    return found[chosen].reshape(len(chosen[0]), operator.num_groups, -1).movedim(1, 0)


def rows_of(layer_map: OperatorMap, y: Tensor, wanted: int) -> Tensor:
    """Take the outputs that belong to `patches` of the same input, [samples, channels]."""
    operator = layer_map.operator
    rows = y.movedim(operator.channel_axis(y.ndim), -1).flatten(0, y.ndim - 2 - operator.num_spatial_axes)
    return rows[_chosen(rows.shape[:-1], wanted)]


def _of_images(operator: Convolution, weight: Tensor, x: Tensor) -> Tensor:
    """All patches of images, a view of [batch, *positions, channels, *kernel]."""
    x = F.pad(x, [pad for pair in reversed(operator.padding) for pad in pair])
    for axis, size in enumerate(weight.shape[2:]):
        span = operator.dilation[axis] * (size - 1) + 1
        x = x.unfold(2 + axis, span, operator.stride[axis])[..., :: operator.dilation[axis]]
    return x.movedim(1, 1 + operator.rank)


def _of_rows(operator: Linear, weight: Tensor, x: Tensor) -> Tensor:
    """All rows that a linear layer multiplies, [rows, inputs]."""
    return x.flatten(0, -2)


_PATCHES: Mapping[type[Operator], Callable[[Any, Tensor, Tensor], Tensor]] = {
    Convolution: _of_images,
    Linear: _of_rows,
}
"""The patches of an input, by operator; the outputs of all others are no weighted sums of any."""


def _chosen(shape: tuple[int, ...], wanted: int) -> tuple[Tensor, ...]:
    """Indices of about `wanted` places."""
    return torch.unravel_index(torch.arange(0, math.prod(shape), spread_stride(shape, wanted)), shape)
