"""The inputs and outputs of a file: how reals are stored in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.numerics.integer_type import IntegerType

__all__ = ["Border"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Border:
    """One input or output of a file: real = (stored − zero_point) · scale.

    Args:
        name: Its name.
        dtype: The stored type; of some targets float32 holds integers.
        shape: Of one sample.
        scale: The real value of one step; of a float border, that of the levels behind it.
        zero_point: The stored number of zero.
        levels: The integer type of the levels, "uint4" in uint8 for example; "float32" of an output that a float layer
            gives, with output="float", which has no levels, and the scale 1.
        pixel: For images that are normalised for each channel, (gain, shift): pixel = gain · x + shift.
        is_float: Whether the file itself quantises or dequantises there.
        held: How the file has it, if not as this says: in a .tflite file channels are last, and all levels int8.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    levels: str
    pixel: tuple[Array, Array] | None = None
    is_float: bool = False
    held: str = ""

    def store(self, x: Array) -> Array:
        """Reals as the file takes them, rounded half to even and clipped."""
        if self.is_float:
            return x.astype(np.float32)
        if self.pixel is not None:
            gain, shift = self.pixel
            pixels: Array = np.rint(x.astype(np.float32) * gain + shift)
            return pixels.clip(0, 255).astype(self.dtype)
        levels: Array = np.rint(x.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        low, high = self.limits
        return levels.clip(low, high).astype(self.dtype)

    def real(self, stored: Array) -> Array:
        """What stored numbers stand for, float32."""
        if self.is_float:
            return stored
        if self.pixel is not None:
            gain, shift = self.pixel
            return np.asarray((stored.astype(np.float32) - shift) / gain, np.float32)
        levels = (stored.astype(np.int64) - self.zero_point).astype(np.float32)
        return np.asarray(levels * np.float32(self.scale))

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest stored number."""
        if self.zero_point:
            info = np.iinfo(self.levels)
            return int(info.min), int(info.max)
        integer_type = IntegerType.parse(self.levels)
        return integer_type.qmin, integer_type.qmax
