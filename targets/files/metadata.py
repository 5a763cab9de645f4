"""What the metadata of a file say of its inputs and outputs, and how to feed and read these."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ana_fx.errors import VerifyError
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.targets.files.array_file import parse_json
from ana_fx.targets.onnx.writer import FLOAT_INPUT, FLOAT_TYPE, IO
from ana_fx.text.plain_text import plain

__all__ = ["Border", "borders", "input_borders", "metadata_of", "texts"]

Array = np.ndarray[Any, Any]

_LONGEST = 2**20  # characters of an entry
_MOST_TEXTS = 2**16
_LARGEST_ZERO_POINT = 255
_LEVELS = re.compile(r"ternary|u?int[2-8]|int32|float32")


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
    metadata = metadata_of(model)
    both = (model.graph.input, model.graph.output)
    inputs, outputs = (tuple(_border(value, metadata) for value in values) for values in both)
    return inputs, outputs


def input_borders(model: onnx.ModelProto) -> tuple[Border, ...]:
    """The inputs of a file that `export` wrote.

    Raises:
        VerifyError: Its metadata do not describe them.
    """
    metadata = metadata_of(model)
    return tuple(_border(value, metadata) for value in model.graph.input)


def _border(value: onnx.ValueInfoProto, metadata: Mapping[str, str]) -> Border:
    name, kind = value.name, value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(each.dim_value for each in kind.shape.dim[1:])
        if _comes_from_a_float_layer(name, np.dtype(dtype), metadata):
            return Border(name, np.dtype(dtype), shape, 1.0, 0, FLOAT_TYPE, is_float=True)
        gain, shift = (metadata.get(f"{name}.pixel_{part}") for part in ("gain", "shift"))
        zero_point = _zero_point(metadata[f"{name}.zero_point"])
        return Border(
            name,
            np.dtype(dtype),
            shape,
            _scale(metadata[f"{name}.scale"]),
            zero_point,
            _levels(metadata[f"{name}.type"], zero_point),
            _pixel(gain, shift, shape),
            is_float=metadata.get(IO) == "float",
        )
    except (KeyError, ValueError) as error:
        raise VerifyError(
            f"the metadata do not describe {plain(name)!r}: {error}; needed a file that ana_fx.export wrote"
        ) from error


def _comes_from_a_float_layer(name: str, dtype: np.dtype[Any], metadata: Mapping[str, str]) -> bool:
    """Whether a border is no border of integers; files before 0.2 say nothing of it but that there is a float layer."""
    if f"{name}.type" in metadata:
        return metadata[f"{name}.type"] == FLOAT_TYPE
    return FLOAT_INPUT in metadata and dtype == np.float32


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata of a file.

    Raises:
        VerifyError: An entry is longer than any that `export` writes.
    """
    for entry in model.metadata_props:
        if len(entry.key) > _LONGEST or len(entry.value) > _LONGEST:
            raise VerifyError(
                f"the metadata have an entry {entry.key[:40]!r} of {len(entry.value):,} characters, needed at most "
                f"{_LONGEST:,}"
            )
    return {entry.key: entry.value for entry in model.metadata_props}


def texts(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    """The texts that an entry lists as JSON; none if it is not there.

    Raises:
        VerifyError: It is no list of texts.
    """
    try:
        listed = parse_json(metadata.get(key, "[]"))
    except ValueError as error:
        raise VerifyError(f"the metadata say no list of {key!r}: {error}; needed texts as JSON") from error
    if not isinstance(listed, list) or len(listed) > _MOST_TEXTS or not all(isinstance(each, str) for each in listed):
        raise VerifyError(f"the metadata say no list of {key!r}, needed at most {_MOST_TEXTS:,} texts as JSON")
    return tuple(listed)


def _scale(text: str) -> float:
    scale = float(text[:_LONGEST])
    if not (0.0 < scale < math.inf):
        raise ValueError(f"scale {text[:40]!r}, needed a positive number")
    return scale


def _zero_point(text: str) -> int:
    zero_point = int(text) if len(text) < 5 else -1
    if not 0 <= zero_point <= _LARGEST_ZERO_POINT:
        raise ValueError(f"zero point {text[:40]!r}, needed one in [0, {_LARGEST_ZERO_POINT}]")
    return zero_point


def _levels(text: str, zero_point: int) -> str:
    if _LEVELS.fullmatch(text) is None or (zero_point and text not in ("int8", "uint8")):
        raise ValueError(f"type {text[:40]!r}, needed an integer type")
    return text


def _pixel(gain: str | None, shift: str | None, shape: tuple[int, ...]) -> tuple[Array, Array] | None:
    """Both, or none where both are missing."""
    if gain is None and shift is None:
        return None
    return _channels(gain or "", shape, is_factor=True), _channels(shift or "", shape)


def _channels(text: str, shape: tuple[int, ...], *, is_factor: bool = False) -> Array:
    """A number for each channel, or one, [channels, 1, 1]."""
    numbers = parse_json(text)
    if not isinstance(numbers, list) or not numbers or not all(type(each) in (int, float) for each in numbers):
        raise ValueError(f"{text[:40]!r}, needed a list of numbers")
    channels = np.array(numbers, np.float64).astype(np.float32).reshape(-1, 1, 1)
    if not np.isfinite(channels).all() or (is_factor and not channels.all()):
        raise ValueError(f"{text[:40]!r}, needed finite numbers, and no factor of zero")
    if len(channels) not in (1, *shape[:1]):
        raise ValueError(f"{len(channels)} numbers for samples {shape}, needed one or one for each channel")
    return channels
