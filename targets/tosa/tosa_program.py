"""From a program to a .tosa file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn
from torch.fx import GraphModule

from ana_fx.program.tensor_spec import LevelRange
from ana_fx.target import Target
from ana_fx.targets.channels_last.held_tensor import HeldTensor, zero_point_of
from ana_fx.targets.channels_last.layout_program import LayoutProgram
from ana_fx.targets.channels_last.layout_writer import Shape
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.tosa.graph_builder import GraphBuilder
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["HELD_ZERO_POINT", "TosaProgram"]

HELD_ZERO_POINT = "held_zero_point"
"""Behind the name of an input or output: the number of the file that stands for level 0."""


class TosaProgram(LayoutProgram):
    """One walk over a program, whose tensors know no scales: the metadata have those of the borders."""

    builder: GraphBuilder

    def __init__(self, program: GraphModule, target: Target, dialect: WriterDialect) -> None:
        super().__init__(program, target, dialect, GraphBuilder())

    def writer(
        self, path: str, module: nn.Module | None, inputs: tuple[HeldTensor, ...], shape: Shape, levels: LevelRange
    ) -> TosaWriter:
        """What writes a node."""
        return TosaWriter(self.builder, self.target, path, module, inputs, shape, levels)

    def input_tensor(self, name: str, dims: Shape, scale: np.float32, zero_point: int) -> int:
        """A tensor that the file is given."""
        return self.builder.tensor(name, dims)

    def describe(self, name: str, levels: LevelRange, shape: Shape, order: Shape) -> None:
        """What a reader needs to know of a border, and which byte stands for level 0."""
        super().describe(name, levels, shape, order)
        zero_point = 0 if levels.integer_type is None else zero_point_of(levels.integer_type)
        self.metadata[f"{name}.{HELD_ZERO_POINT}"] = str(zero_point)

    def pack(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """The file."""
        return self.builder.pack(metadata)
