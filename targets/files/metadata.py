"""The metadata of a file, whatever its family: what they say of its inputs and outputs, and under which keys."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.targets.files.array_file import parse_json
from ana_fx.targets.files.border import Border
from ana_fx.text.plain_text import plain

__all__ = [
    "FLOAT_INPUT",
    "FLOAT_ISLANDS",
    "FLOAT_TYPE",
    "IO",
    "LABELS",
    "NEEDS_VNNI",
    "TARGET",
    "check_metadata",
    "read_border",
    "stored_levels",
    "texts",
]

TARGET, IO, FLOAT_INPUT, FLOAT_ISLANDS, LABELS, NEEDS_VNNI = (
    "ana_fx.target",
    "ana_fx.io",
    "ana_fx.float_input",
    "ana_fx.float_islands",
    "ana_fx.labels",
    "ana_fx.needs_vnni",
)  # keys
FLOAT_TYPE = "float32"  # of an output that a float layer gives

Array = np.ndarray[Any, Any]

_LONGEST = 2**20  # characters of an entry
_MOST_TEXTS = 2**16
_LARGEST_ZERO_POINT = 255
_THREE_NUMBERS = re.compile(r"(\d{1,3}) (-?\d{1,3}) (-?\d{1,3})")
_LEVELS = re.compile(r"ternary|u?int[2-8]|int32|float32")


def read_border(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], metadata: Mapping[str, str]) -> Border:
    """What the metadata of a file say of one of its inputs or outputs.

    Args:
        name: Its name.
        dtype: The type that it has in the file.
        shape: Of one sample.
        metadata: Those of the file.

    Raises:
        VerifyError: They do not describe it.
    """
    try:
        if _comes_from_a_float_layer(name, dtype, metadata):
            return Border(name, dtype, shape, 1.0, 0, FLOAT_TYPE, is_float=True)
        gain, shift = (metadata.get(f"{name}.pixel_{part}") for part in ("gain", "shift"))
        zero_point = _zero_point(metadata[f"{name}.zero_point"])
        return Border(
            name,
            dtype,
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


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata with an entry that is longer than any that `export` writes.

    Raises:
        VerifyError: There is one.
    """
    for key, text in metadata.items():
        if len(key) > _LONGEST or len(text) > _LONGEST:
            raise VerifyError(
                f"the metadata have an entry {key[:40]!r} of {len(text):,} characters, needed at most {_LONGEST:,}"
            )


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


def stored_levels(metadata: Mapping[str, str], name: str) -> tuple[int, int, int]:
    """The stored number of level 0, the lowest and the highest level, of a value between floats and integers.

    Raises:
        VerifyError: The metadata do not say them.
    """
    found = _THREE_NUMBERS.fullmatch(metadata.get(f"{name}.levels", ""))
    if found is None:
        raise VerifyError(f"the metadata do not describe {plain(name)!r}; needed a file that ana_fx.export wrote")
    zero_point, lowest, highest = map(int, found.groups())
    return zero_point, lowest, highest


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
