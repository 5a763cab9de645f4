"""A family of files, ONNX for example: what `export`, `verify` and `inspect` ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch.fx import GraphModule

from ana_fx.errors import VerifyError
from ana_fx.target import ONNX, FileFormat, Target
from ana_fx.target_registry import find_target, target_called, targets
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import FLOAT_INPUT, FLOAT_ISLANDS, FLOAT_TYPE, IO, LABELS, NEEDS_VNNI, TARGET, texts
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.runtimes.base_runtime import Runtime, runtime_among

__all__ = [
    "Contents",
    "Emission",
    "ExportedFile",
    "FileFamily",
    "FileOrder",
    "FileRun",
    "family_at",
    "family_of",
    "is_exported",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FileOrder:
    """What file `export` was asked for.

    Args:
        target: What it is for.
        is_float: Whether it takes and gives floats.
        name: Its name, without a folder.
        metadata: Entries that its metadata hold beside the family's own.
    """

    target: Target
    is_float: bool
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Emission:
    """A file that was made of a program, before it is written.

    Args:
        data: What stands in it.
        nodes: How each layer map stands in it, in graph order.
        companions: Files that its readers expect beside it, by name.
    """

    data: bytes
    nodes: tuple[NodeReport, ...]
    companions: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What stands in a file.

    Args:
        version: Version of the family's operators.
        operators: How often each operator occurs.
        constants: Bytes of constants of each type.
        float_nodes: The nodes that give out floats, borders aside.
    """

    version: int
    operators: dict[str, int]
    constants: dict[str, int]
    float_nodes: tuple[str, ...]


@dataclass(frozen=True)
class FileRun:
    """What a file gave for some inputs.

    Args:
        outputs: Its outputs, in their order.
        float_inputs: What each of its float layers read, in their order.
        islands: The levels that it makes again of what float layers gave, int64, in their order.
    """

    outputs: list[Array]
    float_inputs: list[Array]
    islands: list[Array] = field(default_factory=list)


class ExportedFile(ABC):
    """A file that was read and checked; all it raises about the file is a VerifyError."""

    fallback: str = "onnxruntime"
    """The target whose promises hold where a file names none that is known: a strict one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Border, ...]:
        """Its inputs."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Border, ...]:
        """Its outputs."""

    @abstractmethod
    def contents(self) -> Contents:
        """What stands in it."""

    @abstractmethod
    def run(self, runtime: Runtime, feeds: Mapping[str, Array]) -> FileRun:
        """Run it, unless it has an operator that no file of its target has, which is refused."""

    @abstractmethod
    def float_tolerance(self, run: FileRun) -> float:
        """How far two float32 evaluations of its float layers can be apart, given what they read; 0 without any."""

    @property
    def target(self) -> Target:
        """The target that it says it is for; a strict one if it names none that is known."""
        return find_target(self.metadata.get(TARGET, "")) or target_called(self.fallback)

    @property
    def target_name(self) -> str:
        """The name of the target that it says it is for."""
        return self.metadata.get(TARGET, "unknown")

    @property
    def io(self) -> str:
        """The type at its borders, "integer" or "float"."""
        return self.metadata.get(IO, "unknown")

    @property
    def labels(self) -> tuple[str, ...]:
        """What the channels of its output stand for."""
        return texts(self.metadata, LABELS)

    @property
    def needs_vnni(self) -> tuple[str, ...]:
        """Its layer maps in which two products can leave 16 bits."""
        return texts(self.metadata, NEEDS_VNNI)

    @property
    def has_floats(self) -> bool:
        """Whether it has float layers."""
        return FLOAT_INPUT in self.metadata

    @property
    def has_islands(self) -> bool:
        """Whether floats stand elsewhere than in a bare last layer."""
        return FLOAT_ISLANDS in self.metadata

    def is_float_layer(self, output: Border) -> bool:
        """Whether a float layer gives that output."""
        return output.levels == FLOAT_TYPE


class FileFamily(ABC):
    """A family of files: how they are made, read and run.

    A new family is a folder with one object of this class, and an `ana_fx.target.FileFormat` that names it.
    """

    @property
    @abstractmethod
    def runtimes(self) -> Mapping[str, Runtime]:
        """What runs its files, by name."""

    @abstractmethod
    def misfits(self, program: GraphModule, target: Target) -> list[str]:
        """List what of a program cannot be written although the target's description can hold it, a line for each."""

    @abstractmethod
    def emit(self, program: GraphModule, order: FileOrder) -> Emission:
        """Make the file of a program; nothing is written yet."""

    @abstractmethod
    def read(self, path: Path) -> ExportedFile:
        """Read a file that nobody vouches for.

        Raises:
            VerifyError: It cannot be read, or is none that `export` writes.
        """

    def runtime(self, name: str) -> Runtime:
        """The runtime of that name; raises what `runtime_among` does."""
        return runtime_among(self.runtimes, name)

    def installed(self, names: Sequence[str]) -> tuple[Runtime, ...]:
        """Those of several runtimes that are installed, in their order.

        Raises:
            ValueError: One of the names is unknown.
            VerifyError: None is installed.
        """
        found: list[Runtime] = []
        missing: list[VerifyError] = []
        for name in names:
            try:
                found.append(self.runtime(name))
            except VerifyError as error:
                missing.append(error)
        if not found:
            raise missing[0]
        return tuple(found)


def family_of(target: Target) -> FileFamily:
    """Import the family of the files of a target."""
    return _imported(target.file_format.code)


def family_at(path: Path) -> FileFamily:
    """Import the family whose suffix a path has; ONNX, whose files may have any name, if no other has it."""
    suffix = path.suffix.lower()
    return _imported((_formats() if suffix != ONNX.suffix else {}).get(suffix, ONNX).code)


def is_exported(path: Path) -> bool:
    """Whether a path has the suffix of a family of files."""
    return path.suffix.lower() in (ONNX.suffix, *_formats())


def _formats() -> dict[str, FileFormat]:
    return {target.file_format.suffix: target.file_format for target in targets()}


def _imported(code: str) -> FileFamily:
    module, _, name = code.partition(":")
    family = getattr(import_module(module), name)
    if not isinstance(family, FileFamily):
        raise TypeError(f"{code!r} is {type(family).__name__}, needed a FileFamily")
    return family
