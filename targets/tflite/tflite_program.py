"""From a program to a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn
from torch.fx import GraphModule

from ana_fx.program.tensor_spec import LevelRange
from ana_fx.target import Target
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_program import LayoutProgram
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.tflite.model_builder import ModelBuilder, Scales
from ana_fx.targets.tflite.tflite_writer import TfliteWriter

__all__ = ["TfliteProgram"]

Shape = tuple[int, ...]


class TfliteProgram(LayoutProgram):
    """One walk over a program, whose tensors know their scales."""

    builder: ModelBuilder

    def __init__(self, program: GraphModule, target: Target, dialect: WriterDialect) -> None:
        super().__init__(program, target, dialect, ModelBuilder())

    def writer(
        self, path: str, module: nn.Module | None, inputs: tuple[HeldTensor, ...], shape: Shape, levels: LevelRange
    ) -> TfliteWriter:
        """What writes a node."""
        return TfliteWriter(self.builder, self.target, path, module, inputs, shape, levels)

    def input_tensor(self, name: str, dims: Shape, scale: np.float32, zero_point: int) -> int:
        """A tensor that the file is given."""
        return self.builder.tensor(name, dims, Scales(scale, zero_point))

    def pack(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """The file."""
        return self.builder.pack(name, metadata)
