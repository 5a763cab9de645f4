"""TFLite as a family of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.fx import GraphModule

from ana_fx.target import Target
from ana_fx.targets.channels_last.layout_family import LayoutFamily
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.tflite.tflite_file import TfliteFile, read_tflite
from ana_fx.targets.tflite.tflite_program import TfliteProgram
from ana_fx.targets.tflite.tflite_runtimes import TFLITE_RUNTIMES

__all__ = ["TFLITE_FAMILY", "TfliteFamily"]


class TfliteFamily(LayoutFamily):
    """Files of TFLite, written without TensorFlow."""

    @property
    def runtimes(self) -> Mapping[str, Runtime]:
        """LiteRT with each of its sets of kernels, and TFLite Micro."""
        return TFLITE_RUNTIMES

    def walk(self, program: GraphModule, target: Target, dialect: WriterDialect) -> TfliteProgram:
        """What writes a program."""
        return TfliteProgram(program, target, dialect)

    def read(self, path: Path) -> TfliteFile:
        """Read a file and check it."""
        return read_tflite(path)


TFLITE_FAMILY = TfliteFamily()
