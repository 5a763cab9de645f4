"""From a program to an ONNX model: one walk, from the inputs to the outputs."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
from torch import Tensor
from torch.fx import GraphModule, Node

from ana_fx.errors import ExportError
from ana_fx.graph import location, module_of, outputs
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_modules import (
    IntegerConstant,
    IntegerHead,
    IntegerMap,
    IntegerMaxPool,
    IntegerSoftmax,
    IntegerTable,
    Repeat,
)
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeImage
from ana_fx.program.tensor_spec import integer_type_of, sample_shape_of
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.emitter import Carrier, Emitter, NodeReport, numpy
from ana_fx.targets.onnx.file_borders import natural_type, shift
from ana_fx.targets.onnx.float_layer import write_float_layer
from ana_fx.targets.onnx.write_movement import write_movement

__all__ = ["FLOAT_INPUT", "FLOAT_TYPE", "IO", "LABELS", "NEEDS_VNNI", "TARGET", "Writer"]

TARGET, IO, FLOAT_INPUT, LABELS, NEEDS_VNNI = (
    "ana_fx.target",
    "ana_fx.io",
    "ana_fx.float_input",
    "ana_fx.labels",
    "ana_fx.needs_vnni",
)  # keys of the metadata


FLOAT_TYPE = "float32"  # of an output that a float layer gives


class Writer:
    """One walk over a program, from its inputs to its outputs."""

    def __init__(self, program: GraphModule, emitter: Emitter, *, is_float: bool) -> None:
        self.program = program
        self.emitter = emitter
        self.is_float = is_float
        self.builder = Builder()
        self.reports: list[NodeReport] = []
        self.metadata = {TARGET: emitter.target.name, IO: "float" if is_float else "integer"}
        self.carriers: dict[Node, Carrier] = {}
        self.floats: dict[Node, ir.Value] = {}

    def write(self) -> ir.Model:
        """The model of the whole program."""
        for node in self.program.graph.nodes:
            if node.op == "call_module":
                self._write_node(node)
        taken = {value.name for value in self.builder.inputs}
        for name, node in outputs(self.program):
            self._write_output(node, f"output_{name}" if name in taken else name)
        return self.builder.model(
            name=type(self.program).__name__,
            opset=self.emitter.opset,
            ir_version=self.emitter.ir_version,
            metadata=self.metadata,
        )

    def _write_node(self, node: Node) -> None:
        module, path = module_of(node), str(node.target)
        shape = sample_shape_of(node)
        inputs = [self.carriers[each] for each in node.args if isinstance(each, Node) and each in self.carriers]
        if isinstance(module, Quantize):
            self.carriers[node] = self._input(node.all_input_nodes[0], module, shape)
        elif isinstance(module, IntegerConstant):
            self.carriers[node] = self._constant(path, module)
        elif isinstance(module, Repeat):
            self.carriers[node] = self._repeat(path, *inputs)
        elif isinstance(module, IntegerMap):
            self._carry(node, self.emitter.integer_map(self.builder, path, module, inputs, shape))
        elif isinstance(module, IntegerHead):
            self._carry(node, self.emitter.head(self.builder, path, module, inputs[0], shape))
        elif isinstance(module, IntegerTable):
            self._carry(node, self.emitter.table(self.builder, path, module, inputs[0], shape))
        elif isinstance(module, IntegerSoftmax):
            self._carry(node, self.emitter.softmax(self.builder, path, module, inputs[0], shape))
        elif isinstance(module, IntegerMaxPool):
            self.carriers[node] = self.emitter.max_pool(self.builder, path, module, inputs[0], shape)
        elif isinstance(module, OperatorMap):
            (border,) = node.all_input_nodes
            value = self._dequantize(self.carriers[border.all_input_nodes[0]], module_of(border), f"{path}.input")
            assert value.name is not None
            self.metadata[FLOAT_INPUT] = "\n".join(filter(None, [self.metadata.get(FLOAT_INPUT), value.name]))
            self.floats[node] = write_float_layer(self.builder, path, module, value, shape)
            self.reports.append(NodeReport(path, "float", "float32", reason="left float by output='float'"))
        elif isinstance(module, Movement):
            self._move(node, path, module, inputs, shape)
        elif not isinstance(module, Dequantize):
            raise ExportError(
                f"{location(node)}: target {self.emitter.target.name!r} has no operator for {type(module).__name__}; "
                f"needed a module that convert() makes; was the program changed?"
            )

    def _carry(self, node: Node, written: tuple[Carrier, NodeReport]) -> None:
        self.carriers[node], report = written
        self.reports.append(report)

    def _move(self, node: Node, path: str, module: Movement, inputs: list[Carrier], shape: tuple[int, ...]) -> None:
        """Data movement, of levels or of what a float layer gives."""
        if inputs:
            x = inputs[0]
            value = write_movement(self.builder, path, module, [each.value for each in inputs], x.zero_point, shape)
            largest, smallest = max(each.largest for each in inputs), min(each.smallest for each in inputs)
            self.carriers[node] = Carrier(value, x.zero_point, shape, largest, smallest)
        else:
            values = [self.floats[source] for source in node.all_input_nodes]
            self.floats[node] = write_movement(self.builder, path, module, values, 0, shape)

    def _constant(self, path: str, module: IntegerConstant) -> Carrier:
        dtype, zero_point = self.emitter.container(module.integer_type)
        levels = numpy(module.levels).astype(np.int64)
        stored = (levels + zero_point).astype(dtype.numpy())
        value = self.builder.constant(stored, path)
        largest, smallest = module.hi + zero_point, module.lo + zero_point
        return Carrier(value, zero_point, tuple(levels.shape), largest, smallest, constant=levels)

    def _repeat(self, path: str, constant: Carrier, samples: Carrier) -> Carrier:
        """A constant for each sample."""
        count = self.builder.op(
            "Shape",
            [samples.value],
            path=path,
            dtype=ir.DataType.INT64,
            shape=(1,),
            attributes={"start": 0, "end": 1},
            has_batch=False,
        )
        sizes = self.builder.constant(np.array(constant.shape, np.int64), f"{path}.sizes")
        rank = len(constant.shape) + 1
        shape = self.builder.op(
            "Concat",
            [count, sizes],
            path=path,
            dtype=ir.DataType.INT64,
            shape=(rank,),
            attributes={"axis": 0},
            has_batch=False,
        )
        value = self._op("Expand", [constant.value, shape], path, constant.dtype, constant.shape)
        return Carrier(value, constant.zero_point, constant.shape, constant.largest, constant.smallest)

    def _input(self, placeholder: Node, module: Quantize, shape: tuple[int, ...]) -> Carrier:
        """The border into the integers."""
        name, integer_type = str(placeholder.target), module.integer_type
        _, zero_point = self.emitter.container(integer_type)
        natural, border_zero = natural_type(integer_type), integer_type.zero_point or 0
        self._describe(
            name, module.scale, border_zero, natural.name.lower() if border_zero else str(integer_type), shape
        )
        if isinstance(module, QuantizeImage):
            for part, channels in (("gain", module.gain), ("shift", module.shift)):
                self.metadata[f"{name}.pixel_{part}"] = json.dumps(channels.flatten().tolist())
        if self.is_float:
            value = self.builder.input(name, ir.DataType.FLOAT, shape)
            value = self.emitter.quantize(self.builder, name, module, value, shape)
        else:
            value = self.builder.input(name, self.emitter.border(natural), shape)
            value = self.emitter.take(self.builder, name, integer_type, value, shape)
        return Carrier(value, zero_point, shape, integer_type.qmax + zero_point, integer_type.qmin + zero_point)

    def _write_output(self, node: Node, name: str) -> None:
        """The border out of the integers, unless a float layer was that already."""
        if node in self.floats:
            self.builder.output(self.floats[node], name)
            shape = self.floats[node].shape
            assert shape is not None
            self.metadata[f"{name}.type"] = FLOAT_TYPE
            self.metadata[f"{name}.shape"] = "x".join(map(str, shape[1:]))
            return
        dequantize = module_of(node)
        carrier = self.carriers[node.all_input_nodes[0]]
        assert isinstance(dequantize, Dequantize)
        natural, zero_point = _natural(node.all_input_nodes[0])
        self._describe(name, dequantize.scale, zero_point, natural.name.lower(), carrier.shape)
        if self.is_float:
            self.builder.output(self._dequantize(carrier, dequantize, name), name)
            return
        distance = zero_point - carrier.zero_point
        value = shift(self.builder, name, carrier.value, carrier.shape, distance, self.emitter.border(natural))
        self.builder.output(value, name)

    def _dequantize(self, carrier: Carrier, module: object, path: str) -> ir.Value:
        assert isinstance(module, Dequantize)
        return self.emitter.dequantize(self.builder, path, carrier, numpy(module.scale))

    def _op(
        self,
        op_type: str,
        inputs: list[ir.Value],
        path: str,
        dtype: ir.DataType,
        shape: tuple[int, ...],
        attributes: dict[str, object] | None = None,
    ) -> ir.Value:
        return self.builder.op(op_type, inputs, path=path, dtype=dtype, shape=shape, attributes=attributes)

    def _describe(self, name: str, scale: Tensor, zero_point: int, kind: str, shape: tuple[int, ...]) -> None:
        """What a reader needs to know of a border, as strings that give the float32 back exactly."""
        self.metadata[f"{name}.scale"] = repr(float(scale))
        self.metadata[f"{name}.zero_point"] = str(zero_point)
        self.metadata[f"{name}.type"] = kind
        self.metadata[f"{name}.shape"] = "x".join(map(str, shape))


def _natural(node: Node) -> tuple[ir.DataType, int]:
    """The type of a program's own output, and the stored number of level 0."""
    integer_type = integer_type_of(node)
    if integer_type is None:
        return ir.DataType.INT32, 0
    return natural_type(integer_type), integer_type.zero_point or 0
