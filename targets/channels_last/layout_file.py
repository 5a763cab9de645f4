"""A file whose images lie with their channels last, seen as the program has them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.targets.channels_last.layout_program import ORDER
from ana_fx.targets.file_family import ExportedFile, FileRun
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import read_border
from ana_fx.targets.files.regular_file import read_regular_file, reason_of
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.text.plain_text import plain

__all__ = ["End", "LayoutFile", "read_checked"]

Array = np.ndarray[Any, Any]

_LARGEST = 2**31 - 1  # what the offsets of a flatbuffer can hold


@dataclass(frozen=True)
class End:
    """An input or output of a file.

    Args:
        name: Its name.
        dims: The shape of a sample in the file.
        zero_point: The number that stands for level 0.
        dtype: Its type in the file.
    """

    name: str
    dims: tuple[int, ...]
    zero_point: int
    dtype: str = "int8"


class LayoutFile(ExportedFile):
    """A file whose borders are described as the program has them: channels first, unsigned levels as uint8.

    The file has int8 with the channels last, and int32 for logits; `run` brings one into the other.

    Args:
        path: Where it was read.
        data: Its bytes.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(path)
        self.data = data

    @abstractmethod
    def ends(self, kind: str) -> list[End]:
        """Its "inputs" or "outputs", in their order."""

    @property
    def inputs(self) -> tuple[Border, ...]:
        """Its inputs."""
        return tuple(self._border(end) for end in self.ends("inputs"))

    @property
    def outputs(self) -> tuple[Border, ...]:
        """Its outputs."""
        return tuple(self._border(end) for end in self.ends("outputs"))

    def run(self, runtime: Runtime, feeds: Mapping[str, Array]) -> FileRun:
        """Run it on the program's integers, and return its outputs with the axes and the type that the program has.

        Raises:
            VerifyError: It takes other inputs, or does not run.
        """
        inputs, outputs = self.ends("inputs"), self.ends("outputs")
        shapes, given = [each.shape for each in self.inputs], [array.shape[1:] for array in feeds.values()]
        if shapes != given:
            raise VerifyError(
                f"{self.path} does not take this program's inputs: samples of {given}, needed {shapes}; "
                f"needed a file that export() wrote from this program"
            )
        stored = {end.name: self._stored(end, array) for end, array in zip(inputs, feeds.values(), strict=True)}
        found = runtime.outputs(self.data, stored, self.path)
        return FileRun([self._natural(end, each) for end, each in zip(outputs, found, strict=True)], [])

    def float_tolerance(self, run: FileRun) -> float:
        """It has no float layer."""
        return 0.0

    def _border(self, end: End) -> Border:
        kind = self.metadata.get(f"{end.name}.type", "")
        dtype = np.dtype(kind if kind == "int32" else np.uint8 if kind.startswith("uint") else np.int8)
        if (kind == "int32") != (end.dtype == "int32"):
            raise VerifyError(
                f"{plain(end.name)!r} of {self.path} is {end.dtype}, and its metadata say {plain(kind)}; "
                f"needed a file that ana_fx.export wrote"
            )
        order = self._order(end.name, len(end.dims))
        shape = tuple(end.dims[order.index(axis)] for axis in range(len(end.dims)))
        border = read_border(end.name, dtype, shape, self.metadata)
        if (end.zero_point, order) == (border.zero_point, tuple(range(len(end.dims)))):
            return border
        return replace(border, held=f"{end.dtype} {'x'.join(('N', *map(str, end.dims)))}, zero point {end.zero_point}")

    def _order(self, name: str, rank: int) -> tuple[int, ...]:
        """The axes of a program's sample as they follow each other in the file."""
        text = self.metadata.get(f"{name}.{ORDER}", "")
        order = tuple(int(axis) for axis in text.split("x") if axis.isdigit())
        if sorted(order) != list(range(rank)):
            raise VerifyError(
                f"the metadata of {self.path} do not say in which order {plain(name)!r} has its axes; "
                f"needed a file that ana_fx.export wrote"
            )
        return order

    def _moved(self, end: End) -> int:
        """By how much the stored integers are larger than the program's."""
        return end.zero_point - self._border(end).zero_point

    def _stored(self, end: End, array: Array) -> Array:
        order = self._order(end.name, array.ndim - 1)
        moved = array.astype(np.int64) + self._moved(end)
        return np.ascontiguousarray(moved.transpose(0, *(axis + 1 for axis in order)).astype(end.dtype))

    def _natural(self, end: End, array: Array) -> Array:
        order = self._order(end.name, array.ndim - 1)
        back = (0, *(order.index(axis) + 1 for axis in range(len(order))))
        levels = array.astype(np.int64).transpose(back) - self._moved(end)
        return np.ascontiguousarray(levels.astype(self._border(end).dtype))


_File = TypeVar("_File", bound=LayoutFile)


def read_checked(path: Path, read: Callable[[Path, bytes], _File]) -> _File:
    """Read a file that nobody vouches for; what is wrong with it is one error.

    Args:
        path: Where it lies.
        read: What makes the file of the path and its bytes, and checks what stands in it.

    Raises:
        VerifyError: It cannot be read, is damaged, or is none that `export` writes.
    """
    try:
        file = read(path, read_regular_file(path, _LARGEST))
        _ = file.metadata, file.inputs, file.outputs
    except (MemoryError, VerifyError):
        raise
    except Exception as error:  # those of the system and of what is missing in the tables share no base
        raise VerifyError(f"cannot load {path}: {reason_of(error)}; needed a file that export() wrote") from error
    return file
