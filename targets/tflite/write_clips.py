"""Clipping to the levels of a node: by the byte, by a fused ReLU, or by operators of their own."""

from __future__ import annotations

import numpy as np

from ana_fx.targets.tflite.schema import Activation, Code
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["activation", "clipped"]

_LOWEST, _HIGHEST = -128, 127


def activation(w: TfliteWriter) -> Activation:
    """The activation that the kernel of a node fuses: a ReLU if that clips at the lowest level, which is 0."""
    return Activation.RELU if w.module.lo == 0 and w.zero_point > _LOWEST else Activation.NONE


def clipped(w: TfliteWriter, index: int, dims: tuple[int, ...], *, has_activation: bool = True) -> int:
    """Write MINIMUM and MAXIMUM where the ends of a byte and the fused ReLU, if there is one, have not clipped yet."""
    lowest = w.module.lo + w.zero_point
    highest = w.module.hi + w.zero_point
    if highest < _HIGHEST:
        index = w.op(Code.MINIMUM, [index, _byte(w, highest, "highest")], dims)
    if lowest > _LOWEST and not (has_activation and activation(w) is Activation.RELU):
        index = w.op(Code.MAXIMUM, [index, _byte(w, lowest, "lowest")], dims)
    return index


def _byte(w: TfliteWriter, number: int, name: str) -> int:
    return w.constant(np.array([number], np.int8), name, w.scales)
