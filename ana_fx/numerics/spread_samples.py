"""Some numbers of a tensor, spread so that they lie in all rows and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["spread_samples", "spread_stride", "tail_samples"]


def spread_samples(x: Tensor, wanted: int) -> Tensor:
    """About so many numbers of a tensor, or all if it has no more, as a vector."""
    return x.flatten()[:: spread_stride(x.shape, wanted)]


def spread_stride(shape: Sequence[int], wanted: int) -> int:
    """The distance of about `wanted` places that are taken from a tensor; it has no factor in common with its sizes.

    With a stride of 16 an image that is 32 wide would show two columns only, one of them at its edge.

    >>> spread_stride((64, 16, 32, 32), 8192)
    129
    """
    total = math.prod(shape)
    stride = max(1, total // wanted)
    while stride > 1 and any(math.gcd(stride, size) > 1 for size in shape[1:]):
        stride += 1
    return stride


def tail_samples(x: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """About so many numbers of a tensor, its largest among them, and for how many of its numbers each stands.

    A step that is found on samples alone clips too much: numbers of which a million holds ten have a part in where it
    must end, and are not among some thousand that were taken evenly.

    Args:
        x: Any tensor.
        wanted: How many; a quarter of them are the numbers with the largest magnitude. All if it has no more.
    """
    numbers = x.flatten()
    if len(numbers) <= wanted:
        return numbers, torch.ones_like(numbers)
    magnitudes, places = numbers.abs().topk(wanted // 4)
    rest = spread_samples(x, wanted - len(places))
    rest = rest[rest.abs() < magnitudes[-1]]
    weights = rest.new_full(rest.shape, (len(numbers) - len(places)) / max(1, len(rest)))
    return torch.cat([numbers[places], rest]), torch.cat([torch.ones_like(magnitudes), weights])
