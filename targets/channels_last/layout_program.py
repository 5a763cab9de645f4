"""From a program to a file: one walk, from the inputs to the outputs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of, outputs
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeImage
from ana_fx.program.tensor_spec import LevelRange, sample_shape_of, spec_of
from ana_fx.target import Target
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last, zero_point_of
from ana_fx.targets.channels_last.layout_writer import LayoutWriter, Shape
from ana_fx.targets.channels_last.upsamplings import Upsampling
from ana_fx.targets.channels_last.writer_dialect import Write, WriterDialect
from ana_fx.targets.files.metadata import IO, TARGET
from ana_fx.targets.node_report import NodeReport

__all__ = ["BORDERS", "ORDER", "LayoutProgram"]

BORDERS = (Quantize, QuantizeImage, Dequantize)
ORDER = "order"
"""Behind the name of an input or output: the axes of a program's sample as they follow each other in the file."""


class Builder(Protocol):
    """Collects the operators of a file."""

    inputs: dict[str, int]
    outputs: dict[str, int]


class LayoutProgram(ABC):
    """Writes a program into a file in one walk, from its inputs to its outputs.

    Args:
        program: What `convert` returned.
        target: What the file is for.
        dialect: The writers, one for each of its modules.
        builder: Collects the operators.
    """

    def __init__(self, program: GraphModule, target: Target, dialect: WriterDialect, builder: Builder) -> None:
        self.program = program
        self.target = target
        self.dialect = dialect
        self.builder = builder
        self.metadata = {TARGET: target.name, IO: "integer"}
        self.reports: list[NodeReport] = []
        self.held: dict[Node, HeldTensor] = {}

    @abstractmethod
    def writer(
        self, path: str, module: nn.Module | None, inputs: tuple[HeldTensor, ...], shape: Shape, levels: LevelRange
    ) -> LayoutWriter:
        """What writes a node."""

    @abstractmethod
    def input_tensor(self, name: str, dims: Shape, scale: np.float32, zero_point: int) -> int:
        """A tensor that the file is given."""

    @abstractmethod
    def pack(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """The file, once all of the program is written."""

    def write(self) -> None:
        """Collect the operators of the whole program."""
        upsamplings = self.dialect.upsamplings(self.program)
        inner = {each for upsampling in upsamplings.values() for each in upsampling.inner}
        for node in self.program.graph.nodes:
            module = module_of(node)
            if node in inner:
                continue
            if node in upsamplings:
                self._write_upsampling(node, upsamplings[node])
            elif isinstance(module, Quantize):
                self._write_input(node, module)
            elif module is not None and not isinstance(module, Dequantize):
                self._write_node(node, module)
        taken = set(self.builder.inputs)
        for name, node in outputs(self.program):
            self._write_output(node, f"output_{name}" if name in taken else name)

    def _write_node(self, node: Node, module: nn.Module) -> None:
        write = self.dialect.writer(module)
        assert write is not None, node  # a program with a module that has none is refused before
        sources = [each for each in node.args if isinstance(each, Node)]
        self._write(node, sources, write, self.dialect.subject(module))

    def _write_upsampling(self, node: Node, upsampling: Upsampling) -> None:
        self._write(node, [upsampling.source], self.dialect[type(upsampling.form)], upsampling.form)

    def _write(self, node: Node, sources: Sequence[Node], write: Write, subject: Any) -> None:
        inputs = tuple(self.held[each] for each in sources)
        path, levels = str(node.target), _levels(node)
        w = self.writer(path, module_of(node), inputs, sample_shape_of(node), levels)
        self.held[node] = write(w, subject)
        if w.notes:
            self.reports.append(w.report())

    def _write_input(self, node: Node, module: Quantize) -> None:
        name, shape, levels = str(node.all_input_nodes[0].target), sample_shape_of(node), _levels(node)
        order = channels_last(len(shape)) if _are_images(node) else tuple(range(len(shape)))
        point, scale = zero_point_of(module.integer_type), np.float32(levels.scale)
        dims = tuple(shape[axis] for axis in order)
        index = self.input_tensor(name, dims, scale, point)
        self.builder.inputs[name] = index
        self.held[node] = HeldTensor(index, point, scale, levels.lo, shape, shape, order)
        self.describe(name, levels, shape, order)
        if isinstance(module, QuantizeImage):
            for part, channels in (("gain", module.gain), ("shift", module.shift)):
                self.metadata[f"{name}.pixel_{part}"] = json.dumps(channels.flatten().tolist())

    def _write_output(self, node: Node, name: str) -> None:
        """Write an output with its axes as they were computed, or as the program's where the file has others."""
        (source,) = node.all_input_nodes
        x, levels = self.held[source], _levels(source)
        order = x.order if x.image == x.shape else tuple(range(len(x.shape)))
        w = self.writer(name, module_of(node), (x,), x.shape, levels)
        index = w.arranged(x, x.shape, order)
        if index in (*self.builder.inputs.values(), *self.builder.outputs.values()):
            index = w.copied(x, index, tuple(x.shape[axis] for axis in order))  # one tensor is one output
        self.builder.outputs[name] = index
        self.describe(name, levels, x.shape, order)

    def describe(self, name: str, levels: LevelRange, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
        """Note what a reader must know of a border in the metadata, as strings that give the float32 back exactly."""
        integer_type = levels.integer_type
        zero_point = (integer_type and integer_type.zero_point) or 0
        self.metadata |= {
            f"{name}.scale": repr(float(levels.scale)),
            f"{name}.zero_point": str(zero_point),
            f"{name}.type": "int32" if integer_type is None else _type_name(integer_type),
            f"{name}.shape": "x".join(map(str, shape)),
            f"{name}.{ORDER}": "x".join(map(str, order)),
        }


def _type_name(integer_type: IntegerType) -> str:
    """The name by which `ana_fx.targets.files.metadata.read_border` knows a type: uint8 if it has a zero point."""
    return "uint8" if integer_type.zero_point else str(integer_type)


def _levels(node: Node) -> LevelRange:
    levels = spec_of(node).levels
    assert levels is not None
    return levels


def _are_images(node: Node) -> bool:
    """Whether the first layer that reads a tensor takes it for an image, or a row, with channels."""
    todo: list[Any] = list(node.users)
    while todo:
        module = module_of(reader := todo.pop(0))
        if isinstance(module, IntegerMaxPool):
            return True
        if isinstance(module, IntegerMap):
            return module.operator.num_spatial_axes > 0 or len(sample_shape_of(node)) == 3
        todo += list(reader.users)
    return False
