"""TOSA as a family of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.fx import GraphModule

from ana_fx.target import Target
from ana_fx.targets.channels_last.layout_family import LayoutFamily
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.tosa.tosa_file import TosaFile, read_tosa
from ana_fx.targets.tosa.tosa_program import TosaProgram
from ana_fx.targets.tosa.tosa_runtime import TOSA_RUNTIMES

__all__ = ["TOSA_FAMILY", "TosaFamily"]


class TosaFamily(LayoutFamily):
    """Files of TOSA, written without Arm's serializer."""

    @property
    def runtimes(self) -> Mapping[str, Runtime]:
        """Arm's reference model."""
        return TOSA_RUNTIMES

    def walk(self, program: GraphModule, target: Target, dialect: WriterDialect) -> TosaProgram:
        """What writes a program."""
        return TosaProgram(program, target, dialect)

    def read(self, path: Path) -> TosaFile:
        """Read a file and check it."""
        return read_tosa(path)


TOSA_FAMILY = TosaFamily()
