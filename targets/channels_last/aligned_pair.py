"""The two tensors of a map, with their axes in one order."""

from __future__ import annotations

from dataclasses import dataclass

from ana_fx.targets.channels_last.held_tensor import channels_last
from ana_fx.targets.channels_last.layout_writer import LayoutWriter, Shape

__all__ = ["AlignedPair"]


@dataclass(frozen=True)
class AlignedPair:
    """Two tensors with their axes in one order.

    Args:
        image: The shape of what they become: that of the program's sample, or another shape of the same numbers.
        order: The axes of `image` in the order that the file has them in.
        indices: The two tensors of the file.
        dims_of: The shapes of their samples; an axis that is broadcast has length 1.
    """

    image: Shape
    order: Shape
    indices: tuple[int, int]
    dims_of: tuple[Shape, Shape]

    @classmethod
    def of(cls, w: LayoutWriter) -> AlignedPair:
        """Put both inputs of a node in the order of the first one, or with the channels last if their signs differ."""
        first, second = w.inputs
        is_alike = first.shape == second.shape
        image, order = (first.image, first.order) if is_alike else (w.shape, tuple(range(len(w.shape))))
        if len(w.module.sign) > 1:
            image, order = w.shape, channels_last(len(w.shape))
        elif first.image == first.shape:
            order = first.order
        images = [image if is_alike else x.shape for x in w.inputs]
        one, other = (w.arranged(x, own, order) for x, own in zip(w.inputs, images, strict=True))
        a, b = (tuple(own[axis] for axis in order) for own in images)
        return cls(image, order, (one, other), (a, b))

    @property
    def dims(self) -> Shape:
        """The shape of what they become."""
        return tuple(self.image[axis] for axis in self.order)

    @property
    def is_broadcast(self) -> bool:
        """Whether one of them is repeated along an axis."""
        return self.dims_of[0] != self.dims_of[1]
