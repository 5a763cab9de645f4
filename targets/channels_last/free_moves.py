"""Writing what moves no number, because the file keeps them where they are."""

from __future__ import annotations

from ana_fx.program.data_movement import Permute, Reshape
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_writer import LayoutWriter

__all__ = ["write_permute", "write_reshape"]


def write_reshape(w: LayoutWriter, module: Reshape) -> HeldTensor:
    """Write nothing: what reads the tensor takes its numbers as they lie, or moves them itself."""
    return w.moved(w.x, w.x.index, w.x.image, w.x.order)


def write_permute(w: LayoutWriter, module: Permute) -> HeldTensor:
    """Write nothing: the axes have another order for the program, not in the file."""
    x = w.as_shaped()
    order = [axis - 1 for axis in module.order[1:]]
    return w.moved(x, x.index, w.shape, tuple(order.index(axis) for axis in x.order))
