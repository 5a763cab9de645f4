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
    """A tensor of the file, int8, and how the numbers of a sample of the program's lie in it.

    Args:
        index: The tensor of the file; its sample has the shape `dims`.
        zero_point: What stands for level 0.
        scale: The real value of one level, float32.
        lo: No level is below it.
        shape: Of a sample of the program.
        image: Another shape of the same numbers in the same order, whose axes the file has in another order.
        order: The axes of `image` as they follow each other in the file.
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
        """For each number in the file its place in the program's sample."""
        return positions(self.image, self.order)

    def lies(self, image: tuple[int, ...], order: tuple[int, ...]) -> bool:
        """Whether its numbers follow each other as those of that image, in that order of its axes."""
        return np.array_equal(self.positions, positions(image, order))


def positions(image: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The place in an image of each number once its axes have that order."""
    return np.asarray(np.arange(math.prod(image)).reshape(image).transpose(order).ravel())


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of the axes of a sample whose first axis has the channels."""
    return (*range(1, rank), 0) if rank else ()


def zero_point_of(integer_type: IntegerType) -> int:
    """What stands for level 0 in int8: so that the highest level of an unsigned type is the highest byte.

    Kernels clip there anyway, and at level 0 with a fused ReLU, so that fewer levels than 256 cost no operator.
    """
    if integer_type.zero_point is not None:
        return _HIGHEST - integer_type.qmax
    return 0 if integer_type.signed else _HIGHEST - integer_type.qmax
