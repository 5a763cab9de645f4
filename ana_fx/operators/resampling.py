"""Operators whose outputs are weighted averages of positions: average pooling, linear interpolation.

Each spatial axis has a matrix of integers, [size', size]; the accumulator is their product with the
levels, axis by axis. Where all windows of an average are of one size the matrices are not needed.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from ana_fx.operators.base_operator import Operator

__all__ = ["Resampling", "of_each_axis"]


class Resampling(Operator):
    """A map of each channel's image, linear along each axis."""

    rank: int

    @property
    def num_spatial_axes(self) -> int:
        """The axes of the windows."""
        return self.rank

    @property
    def keeps_sign(self) -> bool:
        """An average of numbers that are not negative is none."""
        return True

    @abstractmethod
    def matrices(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """For each spatial axis of an input of that shape the integer matrix [size', size], int64."""

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The product with the matrix of each axis.

        In float64: behind the first axis numbers have more than eight bits, which matrix products in float32 may
        round, where `torch.set_float32_matmul_precision` allows bfloat16.
        """
        (x,) = inputs
        dtype = x.dtype
        matrices = self.matrices(tuple(x.shape))
        x = x.double()
        for axis, matrix in enumerate(matrices, start=x.ndim - len(matrices)):
            x = (matrix.to(x) @ x.transpose(axis, -2)).transpose(axis, -2) if axis < x.ndim - 1 else x @ matrix.to(x).T
        return x.to(dtype)


def of_each_axis(value: Any, rank: int) -> tuple[Any, ...]:
    """What torch takes as one number for all axes, or as one for each."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
