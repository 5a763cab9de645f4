"""A convolution or a linear layer as rows of a matrix: what each output is a weighted sum of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear

__all__ = ["has_patches", "patches", "rows_of"]


def has_patches(layer_map: OperatorMap) -> bool:
    """Whether the outputs of a layer map are weighted sums of patches of its input."""
    return isinstance(layer_map.operator, (Convolution, Linear))


def patches(layer_map: OperatorMap, x: Tensor, wanted: int) -> Tensor:
    """Some patches of an input, [groups, samples, inputs].

    Args:
        layer_map: A convolution or a linear layer.
        x: What it reads.
        wanted: About how many; they are spread evenly over samples and positions.
    """
    operator, weight = layer_map.operator, layer_map.weight
    assert weight is not None
    if not isinstance(operator, Convolution):
        return _spread(x.reshape(-1, x.shape[-1]), wanted)[None]
    x = F.pad(x, [pad for pair in reversed(operator.padding) for pad in pair])
    for axis, size in enumerate(weight.shape[2:]):
        span = operator.dilation[axis] * (size - 1) + 1
        x = x.unfold(2 + axis, span, operator.stride[axis])[..., :: operator.dilation[axis]]
    x = x.movedim(1, 1 + operator.rank)  # [batch, *positions, channels, *kernel]
    chosen = _chosen(x.shape[: 1 + operator.rank], wanted)
    return x[chosen].reshape(len(chosen[0]), operator.groups, -1).movedim(1, 0)


def rows_of(layer_map: OperatorMap, y: Tensor, wanted: int) -> Tensor:
    """The outputs that belong to `patches` of the same input, [samples, channels]."""
    if not isinstance(layer_map.operator, Convolution):
        return _spread(y.reshape(-1, y.shape[-1]), wanted)
    y = y.movedim(1, -1)
    return y[_chosen(y.shape[:-1], wanted)]


def _spread(rows: Tensor, wanted: int) -> Tensor:
    return rows[_chosen(rows.shape[:1], wanted)]


def _chosen(shape: tuple[int, ...], wanted: int) -> tuple[Tensor, ...]:
    """Indices of about `wanted` places, evenly spread; the stride has no factor in common with the last axis."""
    total = torch.Size(shape).numel()
    stride = max(1, total // wanted)
    while stride > 1 and any(torch.gcd(torch.tensor(stride), torch.tensor(size)) > 1 for size in shape[1:]):
        stride += 1
    return torch.unravel_index(torch.arange(0, total, stride), shape)
