"""From a program to an ONNX model: one walk, from the inputs to the outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of, outputs
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeFloat, QuantizeImage
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.target import Target
from ana_fx.targets.files.metadata import FLOAT_INPUT, FLOAT_ISLANDS, FLOAT_TYPE, IO, TARGET
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.dialect import Dialect
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor

__all__ = ["BORDERS", "ProgramWriter", "natural_type"]

BORDERS = (Quantize, QuantizeImage, Dequantize)
"""Modules that a file with integer borders writes without the dialect's writers."""


class ProgramWriter:
    """One walk over a program, from its inputs to its outputs.

    Args:
        program: What `convert` returned.
        target: What the file is for.
        dialect: Writes the nodes; it has a writer for each.
        is_float: Whether the file takes and gives floats.
    """

    def __init__(self, program: GraphModule, target: Target, dialect: Dialect, *, is_float: bool) -> None:
        self.program = program
        self.target = target
        self.dialect = dialect
        self.is_float = is_float
        self.builder = Builder()
        self.reports: list[NodeReport] = []
        self.metadata = {TARGET: target.name, IO: "float" if is_float else "integer"}
        self.stored: dict[Node, StoredTensor] = {}
        self.islands: list[str] = []  # what is integers again behind float layers

    def write(self) -> ir.Model:
        """The model of the whole program."""
        borders: dict[type, Callable[[Node, Any], None]] = {
            Quantize: self._write_input,
            QuantizeImage: self._write_image,
            Dequantize: self._pass,
            QuantizeFloat: self._write_end_of_island,
            OperatorMap: self._write_float_layer,
        }
        for node in self.program.graph.nodes:
            if node.op == "call_module":
                module = module_of(node)
                borders.get(type(module), self._write_node)(node, module)
        taken = {value.name for value in self.builder.inputs}
        for name, node in outputs(self.program):
            self._write_output(node, f"output_{name}" if name in taken else name)
        return self.builder.model(
            name=type(self.program).__name__,
            opset=self.dialect.opset,
            ir_version=self.dialect.ir_version,
            metadata=self.metadata,
        )

    def _write_node(self, node: Node, module: nn.Module) -> None:
        inputs = [self.stored[each] for each in node.args if isinstance(each, Node)]
        self.stored[node] = self._written(str(node.target), module, inputs, sample_shape_of(node))

    def _write_float_layer(self, node: Node, module: OperatorMap) -> None:
        """A layer that stays in floats, behind what makes floats of the levels that it reads."""
        path, operands = str(node.target), node.all_input_nodes
        if not module.is_bare or not all(isinstance(module_of(each), Dequantize) for each in operands):
            self._note_islands()
        inputs = [
            self.stored[each] if each in self.stored else self._read_by_float_layer(each, f"{path}.input{index or ''}")
            for index, each in enumerate(operands)
        ]
        self.stored[node] = self._written(path, module, inputs, sample_shape_of(node))

    def _read_by_float_layer(self, border: Node, name: str) -> StoredTensor:
        dequantize = module_of(border)
        assert dequantize is not None
        x = self._dequantized(border, dequantize, name)
        assert x.value.name is not None
        self.metadata[FLOAT_INPUT] = "\n".join(filter(None, [self.metadata.get(FLOAT_INPUT), x.value.name]))
        return x

    def _write_end_of_island(self, node: Node, module: QuantizeFloat) -> None:
        """The border back into the integers."""
        (source,), integer_type = node.all_input_nodes, module.integer_type
        found = self.stored[node] = self._written(
            str(node.target), module, [self.stored[source]], sample_shape_of(node)
        )
        last = found.value.producer()
        assert last is not None
        value = last.inputs[0] if last.op_type == "Clip" else found.value  # a Clip may go behind a pool yet
        assert value is not None
        assert value.name is not None
        self.metadata[f"{value.name}.levels"] = f"{found.zero_point} {integer_type.qmin} {integer_type.qmax}"
        self._note_islands(value.name)

    def _note_islands(self, *names: str) -> None:
        """Say that floats stand elsewhere than in a bare last layer, and what is integers again behind them."""
        self.islands += names
        self.metadata[FLOAT_ISLANDS] = json.dumps(self.islands)

    def _pass(self, node: Node, module: Dequantize) -> None:
        """Nothing here: what makes floats is written where they are read, with the name of the reader."""

    def _write_image(self, node: Node, module: QuantizeImage) -> None:
        """The border into the integers of an image that is normalised."""
        name = str(node.all_input_nodes[0].target)
        self._describe_input(node, module)
        for part, channels in (("gain", module.gain), ("shift", module.shift)):
            self.metadata[f"{name}.pixel_{part}"] = json.dumps(channels.flatten().tolist())
        self._take(node, module)

    def _write_input(self, node: Node, module: Quantize) -> None:
        """The border into the integers."""
        self._describe_input(node, module)
        self._take(node, module)

    def _describe_input(self, node: Node, module: Quantize) -> None:
        integer_type = module.integer_type
        zero_point = integer_type.zero_point or 0
        kind = natural_type(integer_type).name.lower() if zero_point else str(integer_type)
        name = str(node.all_input_nodes[0].target)
        self._describe(name, module.scale, (kind, zero_point), sample_shape_of(node))

    def _take(self, node: Node, module: Quantize) -> None:
        name, shape, integer_type = str(node.all_input_nodes[0].target), sample_shape_of(node), module.integer_type
        if self.is_float:
            x = self.builder.input(name, ir.DataType.FLOAT, shape)
            self.stored[node] = self._written(name, module, [StoredTensor(x, 0, shape, is_real=True)], shape)
            return
        x = self.builder.input(name, self.dialect.border(natural_type(integer_type)), shape)
        w = self._writer(name, module, [], shape)
        self.stored[node] = w.stored(self.dialect.take(w, x), integer_type.qmin, integer_type.qmax)

    def _write_output(self, node: Node, name: str) -> None:
        """The border out of the integers, unless a float layer was that already."""
        if node in self.stored:
            found = self.stored[node]
            self.builder.output(found.value, name)
            self.metadata[f"{name}.type"] = FLOAT_TYPE
            self.metadata[f"{name}.shape"] = "x".join(map(str, found.shape))
            return
        dequantize, (source,) = module_of(node), node.all_input_nodes
        assert dequantize is not None
        x = self.stored[source]
        natural, zero_point = _natural(source)
        self._describe(name, dequantize.scale, (natural.name.lower(), zero_point), x.shape)
        if self.is_float:
            self.builder.output(self._dequantized(node, dequantize, name).value, name)
            return
        w = self._writer(name, dequantize, [x], x.shape)
        self.builder.output(w.shifted(x.value, zero_point - x.zero_point, self.dialect.border(natural)), name)

    def _dequantized(self, node: Node, module: nn.Module, path: str) -> StoredTensor:
        """The reals of the levels that a border out of the integers reads."""
        x = self.stored[node.all_input_nodes[0]]
        return self._written(path, module, [x], x.shape)

    def _written(
        self, path: str, module: nn.Module, inputs: Sequence[StoredTensor], shape: tuple[int, ...]
    ) -> StoredTensor:
        """What the dialect's writer of a module wrote; its report is kept if it makes one."""
        write = self.dialect.writer(module)
        assert write is not None, path  # a program with a module that has none is refused before
        w = self._writer(path, module, inputs, shape)
        found = write(w, self.dialect.subject(module))
        if w.notes:
            self.reports.append(w.report())
        return found

    def _writer(
        self, path: str, module: nn.Module, inputs: Sequence[StoredTensor], shape: tuple[int, ...]
    ) -> NodeWriter:
        weight = getattr(module, "weight", None)
        return NodeWriter(self.builder, self.dialect, self.target, path, module, tuple(inputs), shape, weight)

    def _describe(self, name: str, scale: Any, levels: tuple[str, int], shape: tuple[int, ...]) -> None:
        """What a reader needs to know of a border, as strings that give the float32 back exactly."""
        kind, zero_point = levels
        self.metadata[f"{name}.scale"] = repr(float(scale))
        self.metadata[f"{name}.zero_point"] = str(zero_point)
        self.metadata[f"{name}.type"] = kind
        self.metadata[f"{name}.shape"] = "x".join(map(str, shape))


def natural_type(integer_type: IntegerType) -> ir.DataType:
    """The byte that holds levels as they are, or with the zero point of their type."""
    is_signed = integer_type.signed and integer_type.zero_point is None
    return ir.DataType.INT8 if is_signed else ir.DataType.UINT8


def _natural(node: Node) -> tuple[ir.DataType, int]:
    """The type of a program's own output, and the stored number of level 0."""
    integer_type = integer_type_of(node)
    if integer_type is None:
        return ir.DataType.INT32, 0
    return natural_type(integer_type), integer_type.zero_point or 0
