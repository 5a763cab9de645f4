"""The modules of a lowered program that only move, repeat or drop numbers, or fill in zeros.

Tensors have a leading batch axis of any size and any dtype. "Sample shape" is a shape without that axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Concat", "Movement", "Pad", "Permute", "Rearrange", "Reshape", "Slice", "Take"]


class Movement(nn.Module):
    """What all movements are: `forward` takes one tensor, that of `Concat` and `Rearrange` several."""


class Reshape(Movement):
    """A new shape for each sample; the leading axis takes what is left."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] to [N', *shape]."""
        return x.reshape(-1, *self.shape)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return str(self.shape)


class Permute(Movement):
    """Another order of the axes; the batch stays in front.

    Args:
        order: For each axis of the result the axis of the input, the batch included: `order[0]` is 0.

    Raises:
        ValueError: `order` is not such an order.
    """

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        if order[:1] != (0,) or sorted(order) != list(range(len(order))):
            raise ValueError(f"found order {order}, needed 0 and then the other axes, each once")
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] to [N, …]."""
        return x.permute(self.order)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return str(self.order)


class Slice(Movement):
    """Every `step`-th element of each axis, from `start` up to and without `stop`.

    Args:
        slices: (start, stop, step) for each axis but the batch; neither counts from the end.

    Raises:
        ValueError: A start or stop is negative, or a step not positive.
    """

    def __init__(self, slices: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        for start, stop, step in slices:
            if start < 0 or stop < 0 or step < 1:
                raise ValueError(f"found slice ({start}, {stop}, {step}), needed start, stop >= 0 and step > 0")
        self.slices = slices

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] to [N, …], of the same rank."""
        slices = (slice(None), *(slice(*each) for each in self.slices))
        return x[slices]

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return ", ".join(":".join(map(str, each)) for each in self.slices)


class Take(Movement):
    """The elements of one axis with these indices, in their order, repeated as often as they are listed.

    Args:
        axis: Which axis; the batch is axis 0 and cannot be taken from.
        index: int64, [length of that axis in the result].

    Raises:
        ValueError: The axis is that of the batch, or the index is not a list of integers.
    """

    index: Tensor

    def __init__(self, axis: int, index: Tensor) -> None:
        super().__init__()
        if axis < 1:
            raise ValueError(f"found axis {axis}, needed one behind the batch: 1 or more")
        if index.dtype != torch.int64 or index.ndim != 1:
            raise ValueError(f"found an index {index.dtype} of rank {index.ndim}, needed torch.int64 of rank 1")
        self.axis = axis
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] to [N, …], of the same rank."""
        return x.index_select(self.axis, self.index)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"axis={self.axis}, index={_abbreviated(self.index)}"


class Pad(Movement):
    """Zeros before and after.

    Args:
        padding: (before, after) for each axis but the batch.

    Raises:
        ValueError: A number is negative.
    """

    def __init__(self, padding: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        if any(number < 0 for pair in padding for number in pair):
            raise ValueError(f"found padding {padding}, needed no negative number; a Slice crops")
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, …] to [N, …], of the same rank."""
        return F.pad(x, [number for pair in reversed(self.padding) for number in pair])

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return str(self.padding)


class Concat(Movement):
    """Several tensors behind each other along an axis.

    Raises:
        ValueError: The axis is that of the batch.
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        if axis < 1:
            raise ValueError(f"found axis {axis}, needed one behind the batch: 1 or more")
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        """Tensors [N, …] that agree in all other axes to [N, …]."""
        return torch.cat(inputs, self.axis)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"axis={self.axis}"


class Rearrange(Movement):
    """Any movement: for each element of the result where it comes from.

    Args:
        index: int64, [elements of a resulting sample]. 0 is a zero, i + 1 is element i of the inputs'
            flattened samples behind each other.
        shape: Sample shape of the result; the leading axis takes what is left.
        sizes: The number of elements in a sample of each input.

    Raises:
        ValueError: The index is not a list of integers.
    """

    index: Tensor

    def __init__(self, index: Tensor, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        super().__init__()
        if index.dtype != torch.int64 or index.ndim != 1:
            raise ValueError(f"found an index {index.dtype} of rank {index.ndim}, needed torch.int64 of rank 1")
        self.shape = shape
        self.sizes = sizes
        self.register_buffer("index", index)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Tensors whose samples have these sizes to [N', *shape]."""
        flat = torch.cat([x.reshape(-1, size) for x, size in zip(inputs, self.sizes, strict=True)], 1)
        return F.pad(flat, (1, 0)).index_select(1, self.index).reshape(-1, *self.shape)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"index={_abbreviated(self.index)}, shape={self.shape}, sizes={self.sizes}"


def _abbreviated(index: Tensor) -> str:
    if len(index) <= 8:
        return str(index.tolist())
    return f"[{', '.join(map(str, index[:4].tolist()))}, …, {index[-1]}]"
