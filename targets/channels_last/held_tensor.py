"""How a file holds the levels of one tensor of a program."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.numerics.integer_type import IntegerType

__all__ = ["HeldTensor", "channels_last", "zero_point_of"]

_HIGHEST = 127


@dataclass(frozen=True)
class HeldTensor:
    """A tensor of int8 in the file, and the order in which it holds the levels of a program's tensor.

    Args:
        index: The tensor of the file; its sample has the shape `dims`.
        zero_point: The integer that stands for level 0.
        scale: The real value of one level, float32.
        lo: A lower bound of the levels.
        shape: The shape of a sample of the program.
        image: A shape of the same numbers in the same order, such as [channels, height, width] of a flattened image.
        order: The axes of `image` in the order that the file has them in.
    """

    index: int
    zero_point: int
    scale: np.float32
    lo: int
    shape: tuple[int, ...]
    image: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of a sample in the file."""
        return tuple(self.image[axis] for axis in self.order)

    @property
    def positions(self) -> np.ndarray[Any, Any]:
        """The place of each number of the file in the program's sample."""
        return positions(self.image, self.order)

    def lies(self, image: tuple[int, ...], order: tuple[int, ...]) -> bool:
        """Whether the file has the numbers in the order of that image with its axes put in that order."""
        return np.array_equal(self.positions, positions(image, order))


def positions(image: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The places in an image of its numbers, in the order that they have once its axes are put in that order."""
    return np.asarray(np.arange(math.prod(image)).reshape(image).transpose(order).ravel())


def channels_last(rank: int) -> tuple[int, ...]:
    """The order that puts the first axis of a sample, its channels, behind the others."""
    return (*range(1, rank), 0) if rank else ()


def zero_point_of(integer_type: IntegerType) -> int:
    """The int8 that stands for level 0. It makes the highest level of an unsigned type the highest byte, 127.

    Kernels clip at 127 in any case, and at level 0 by a fused ReLU, so that types with few levels cost no operator.
    """
    if integer_type.zero_point is not None:
        return _HIGHEST - integer_type.qmax
    return 0 if integer_type.signed else _HIGHEST - integer_type.qmax
