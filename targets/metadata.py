"""What the metadata of a file say of its inputs and outputs, and how to feed and read these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ana_fx.errors import VerifyError
from ana_fx.numbers import IntegerType
from ana_fx.targets.writer import FLOAT_INPUT, FLOAT_TYPE, IO

__all__ = ["Border", "borders"]

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
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    levels: str
    pixel: tuple[Array, Array] | None = None
    is_float: bool = False

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


def borders(model: onnx.ModelProto) -> tuple[tuple[Border, ...], tuple[Border, ...]]:
    """The inputs and the outputs of a file that `export` wrote.

    Raises:
        VerifyError: Its metadata do not describe them.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    both = (model.graph.input, model.graph.output)
    inputs, outputs = (tuple(_border(value, metadata) for value in values) for values in both)
    return inputs, outputs


def _border(value: onnx.ValueInfoProto, metadata: Mapping[str, str]) -> Border:
    name, kind = value.name, value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if _comes_from_a_float_layer(name, np.dtype(dtype), metadata):
            shape = tuple(each.dim_value for each in kind.shape.dim[1:])
            return Border(name, np.dtype(dtype), shape, 1.0, 0, FLOAT_TYPE, is_float=True)
        gain, shift = (metadata.get(f"{name}.pixel_{part}") for part in ("gain", "shift"))
        return Border(
            name,
            np.dtype(dtype),
            tuple(each.dim_value for each in kind.shape.dim[1:]),
            float(metadata[f"{name}.scale"]),
            int(metadata[f"{name}.zero_point"]),
            metadata[f"{name}.type"],
            (_channels(gain), _channels(shift)) if gain and shift else None,
            is_float=metadata.get(IO) == "float",
        )
    except (KeyError, ValueError) as error:
        raise VerifyError(
            f"the metadata do not describe {name!r}: {error}; needed a file that ana_fx.export wrote"
        ) from error


def _comes_from_a_float_layer(name: str, dtype: np.dtype[Any], metadata: Mapping[str, str]) -> bool:
    """Whether a border is no border of integers; files before 0.2 say nothing of it but that there is a float layer."""
    if f"{name}.type" in metadata:
        return metadata[f"{name}.type"] == FLOAT_TYPE
    return FLOAT_INPUT in metadata and dtype == np.float32


def _channels(text: str) -> Array:
    return np.array(json.loads(text), np.float32).reshape(-1, 1, 1)
