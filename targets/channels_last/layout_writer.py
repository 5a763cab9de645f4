"""What a writer has in hand while it writes one node of a program whose images lie with their channels last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ana_fx.program.tensor_spec import LevelRange
from ana_fx.target import Target
from ana_fx.targets.channels_last.held_tensor import HeldTensor, zero_point_of
from ana_fx.targets.node_report import NodeReport

__all__ = ["LayoutWriter", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayoutWriter(ABC):
    """Writes the operators of one node.

    Args:
        builder: Collects the operators of the file.
        target: What the file is for.
        path: Path of the node's module; it begins the name of each tensor.
        module: The module.
        inputs: What the node reads.
        shape: Sample shape of what it gives.
        levels: The levels of what it gives.
        notes: What the report of the node will say.
        stored_bytes: Bytes of each of its constants in the file, by name.
    """

    builder: Any
    target: Target
    path: str
    module: Any
    inputs: tuple[HeldTensor, ...]
    shape: Shape
    levels: LevelRange
    notes: dict[str, Any] = field(default_factory=dict)
    stored_bytes: dict[str, int] = field(default_factory=dict)

    @abstractmethod
    def reshape(self, x: HeldTensor | None, index: int, dims: Shape, wanted: Shape) -> int:
        """Write a tensor with the integers of another one in another shape; nothing if that is the same.

        Args:
            x: The input whose levels they are; None for those that the node gives.
            index: The tensor.
            dims: The shape of its samples.
            wanted: The other shape.
        """

    @abstractmethod
    def transpose(self, x: HeldTensor, index: int, order: Sequence[int], dims: Shape) -> int:
        """Write a tensor with the axes of `index`, levels of `x`, in another order, which gives it these sizes."""

    @abstractmethod
    def copied(self, x: HeldTensor, index: int, dims: Shape) -> int:
        """Write another tensor with the same integers in the same shape."""

    @property
    def x(self) -> HeldTensor:
        """The first input."""
        return self.inputs[0]

    @property
    def zero_point(self) -> int:
        """The integer that stands for level 0 of what the node gives."""
        return zero_point_of(self.levels.integer_type) if self.levels.integer_type is not None else 0

    def note(self, operator: str, arithmetic: str) -> None:
        """Say in the report which operator computes the node, and how it requantises."""
        self.notes.update(operator=operator, arithmetic=arithmetic)

    def report(self) -> NodeReport:
        """Report how the node stands in the file."""
        return NodeReport(self.path, **self.notes).with_weights(self.module, self.stored_bytes)

    def held(self, index: int, image: Shape, order: Shape, shape: Shape | None = None) -> HeldTensor:
        """Return a tensor of the file as what the node gives: the numbers of `image` with its axes in `order`."""
        scale = np.float32(self.levels.scale)
        return HeldTensor(index, self.zero_point, scale, self.levels.lo, shape or self.shape, image, order)

    def moved(self, x: HeldTensor, index: int, image: Shape, order: Shape) -> HeldTensor:
        """Return a tensor of the file as what a node gives that leaves the levels of an input as they are."""
        return replace(x, index=index, shape=self.shape, image=image, order=order)

    def as_shaped(self) -> HeldTensor:
        """Put the input into an order of the program's own axes, if the file has other axes."""
        x = self.x
        if x.image == x.shape:
            return x
        order = tuple(range(len(x.shape)))
        return HeldTensor(self.arranged(x, x.shape, order), x.zero_point, x.scale, x.lo, x.shape, x.shape, order)

    def arranged(self, x: HeldTensor, image: Shape, order: Shape) -> int:
        """Put the numbers of an input in the order of `image` with its axes in `order`; return the index of the tensor.

        Nothing is written if they are in that order already.
        """
        dims = tuple(image[axis] for axis in order)
        if x.lies(image, order):
            return self.reshape(x, x.index, x.dims, dims)
        if x.image == image:
            return self.transpose(x, x.index, [x.order.index(axis) for axis in order], dims)
        plain = x.index
        if x.order != tuple(sorted(x.order)):
            plain = self.transpose(x, plain, [x.order.index(axis) for axis in range(len(x.order))], x.image)
        plain = self.reshape(x, plain, x.image, image)
        return plain if order == tuple(sorted(order)) else self.transpose(x, plain, order, dims)
