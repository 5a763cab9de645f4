"""`export`: from an integer program to an ONNX file."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from rich.console import Console
from rich.table import Table
from torch.fx import GraphModule, Node

from ana_fx.errors import ExportError
from ana_fx.graph import location, module_of
from ana_fx.integer import Dequantize, IntegerHead, IntegerMap, IntegerMaxPool, Quantize, Reshape
from ana_fx.targets.builder import Builder
from ana_fx.targets.target import Carrier, NodeReport, Target, numpy

__all__ = ["TARGETS", "ExportReport", "export", "target_called"]

TARGETS = {
    "onnxruntime": "ana_fx.targets.onnxruntime:OnnxRuntimeTarget",
    "integer": "ana_fx.targets.integer:IntegerTarget",
}


@dataclass(frozen=True)
class ExportReport:
    """What was written. Prints as a table, a row for each layer map.

    Args:
        path: The file.
        target: Name of the target.
        io: "integer" or "float", the type at the borders.
        bytes: Size of the file.
        nodes: How each layer map stands in the file, in graph order.
    """

    path: Path
    target: str
    io: str
    bytes: int
    nodes: tuple[NodeReport, ...]

    @property
    def needs_vnni(self) -> tuple[str, ...]:
        """The layer maps that could saturate on x86 processors without VNNI."""
        return tuple(node.name for node in self.nodes if node.needs_vnni)

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as capture:
            console.print(self.__rich__())
        return capture.get().rstrip()

    def __rich__(self) -> Table:
        """The table, for rich consoles."""
        table = Table(title=f"{self.path}: target {self.target}, {self.io} borders, {self.bytes:,} bytes")
        for column in ("layer map", "operator", "arithmetic", "note"):
            table.add_column(column)
        for node in self.nodes:
            note = node.reason or ("needs VNNI on x86, saturates without" if node.needs_vnni else "")
            table.add_row(node.name, node.operator, node.arithmetic, note)
        return table


def target_called(name: str) -> Target:
    """The target of that name; ValueError if there is none."""
    if name not in TARGETS:
        raise ValueError(f"unknown target {name!r}; known are {', '.join(map(repr, TARGETS))}")
    module, _, attribute = TARGETS[name].partition(":")
    target: Target = getattr(import_module(module), attribute)()
    return target


def export(
    integer: GraphModule, path: str | os.PathLike[str], *, target: str | None = None, io: str = "integer"
) -> ExportReport:
    """Write an integer program as an ONNX file with a dynamic batch axis.

    Args:
        integer: What `convert` returned.
        path: The file; it is replaced as a whole, or left as it was.
        target: "onnxruntime" or "integer"; by default the one the model was prepared for.
        io: "integer": integer tensors in and out, their scales in the metadata; "float": floats in
            and out, quantised and dequantised in the file.

    Returns:
        A report of what each layer map became.

    Raises:
        ExportError: The file cannot be written, or the target cannot hold the program.
        ValueError: An argument is unknown, or `integer` is not a converted program.
    """
    if "annealing_ranges" not in integer.meta:
        raise ValueError(f"needed a program from ana_fx.convert, got {type(integer).__name__}")
    if io not in ("integer", "float"):
        raise ValueError(f"io is 'integer' or 'float', got {io!r}")
    writer = _Writer(integer, target_called(target or integer.meta["target"]), is_float=io == "float")
    model = writer.write()
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    _write_atomically(Path(path), data)
    return ExportReport(Path(path), writer.target.name, io, len(data), tuple(writer.reports))


def _write_atomically(path: Path, data: bytes) -> None:
    """A reader sees the old file or the new one, never a part of it."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; needed a writable folder that exists; nothing was written"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class _Writer:
    """One walk over a program, from its inputs to its outputs."""

    def __init__(self, program: GraphModule, target: Target, *, is_float: bool) -> None:
        self.program = program
        self.target = target
        self.is_float = is_float
        self.builder = Builder()
        self.reports: list[NodeReport] = []
        self.metadata = {"ana_fx.target": target.name, "ana_fx.io": "float" if is_float else "integer"}
        self.carriers: dict[Node, Carrier] = {}
        self.floats: dict[Node, ir.Value] = {}

    def write(self) -> ir.Model:
        """The model of the whole program."""
        for node in self.program.graph.nodes:
            if node.op == "call_module":
                self._write_node(node)
        outputs = self.program.graph.output_node().all_input_nodes
        for index, node in enumerate(outputs):
            name = "output" if len(outputs) == 1 else f"output_{index}"
            self._write_output(node, name)
        return self.builder.model(
            name=type(self.program).__name__,
            opset=self.target.opset,
            ir_version=self.target.ir_version,
            metadata=self.metadata,
        )

    def _write_node(self, node: Node) -> None:
        module, path = module_of(node), str(node.target)
        shape = tuple(node.meta["sample_shape"])
        source = node.all_input_nodes[0]
        if isinstance(module, Quantize):
            self.carriers[node] = self._input(source, module, shape)
        elif isinstance(module, IntegerMap):
            inputs = [self.carriers[each] for each in node.args if isinstance(each, Node)]
            self.carriers[node], report = self.target.integer_map(self.builder, path, module, inputs, shape)
            self.reports.append(report)
        elif isinstance(module, IntegerHead):
            self.carriers[node], report = self.target.head(self.builder, path, module, self.carriers[source], shape)
            self.reports.append(report)
        elif isinstance(module, (IntegerMaxPool, Reshape)):
            self.carriers[node] = self._hand_on(path, module, self.carriers[source], shape)
        elif not isinstance(module, Dequantize):
            raise ExportError(
                f"{location(node)}: target {self.target.name!r} has no operator for {type(module).__name__}; "
                f"use output='int32' or 'int8' in Precision to keep the last layer integer"
            )

    def _input(self, placeholder: Node, module: Quantize, shape: tuple[int, ...]) -> Carrier:
        """The border into the integers."""
        name, integer_type = str(placeholder.target), module.integer_type
        dtype, zero_point = self.target.container(integer_type)
        natural = ir.DataType.INT8 if integer_type.signed else ir.DataType.UINT8
        self._describe(name, module.scale, 0, str(integer_type))
        largest = integer_type.qmax + zero_point
        if self.is_float:
            value = self.builder.input(name, ir.DataType.FLOAT, shape)
            scale = self.builder.constant(numpy(module.scale), f"{name}.scale")
            zero = self.builder.constant(_scalar(zero_point, dtype), f"{name}.zero_point")
            value = self._op("QuantizeLinear", [value, scale, zero], name, dtype, shape)
            limits = (integer_type.qmin + zero_point, largest)
            if integer_type.bits < 8 or integer_type.narrow:
                bounds = [self.builder.constant(_scalar(limit, dtype), f"{name}.limit") for limit in limits]
                value = self._op("Clip", [value, *bounds], name, dtype, shape)
            return Carrier(value, zero_point, shape, largest)
        value = self.builder.input(name, natural, shape)
        return Carrier(self._shift(name, value, shape, zero_point, dtype), zero_point, shape, largest)

    def _write_output(self, node: Node, name: str) -> None:
        """The border out of the integers."""
        dequantize = module_of(node)
        assert isinstance(dequantize, Dequantize)
        carrier = self.carriers[node.all_input_nodes[0]]
        is_logits = carrier.dtype is ir.DataType.INT32
        shape = carrier.shape
        if self.is_float:
            inputs = [carrier.value, self.builder.constant(numpy(dequantize.scale), f"{name}.scale")]
            if carrier.zero_point:
                inputs.append(self.builder.constant(_scalar(carrier.zero_point, carrier.dtype), f"{name}.zero_point"))
            value = self._op("DequantizeLinear", inputs, name, ir.DataType.FLOAT, shape)
        else:
            natural = carrier.dtype if is_logits else _natural(node.all_input_nodes[0])
            value = self._shift(name, carrier.value, shape, -carrier.zero_point, natural)
        self._describe(name, dequantize.scale, 0, "int32" if is_logits else "int8")
        self.builder.output(value, name)

    def _shift(self, path: str, value: ir.Value, shape: tuple[int, ...], distance: int, dtype: ir.DataType) -> ir.Value:
        """Add a constant to 8-bit numbers whose type changes with it."""
        if value.dtype is dtype and distance == 0:
            return value
        value = self._op("Cast", [value], path, ir.DataType.INT32, shape, {"to": ir.DataType.INT32})
        if distance:
            constant = self.builder.constant(np.int32(distance), f"{path}.shift")
            value = self._op("Add", [value, constant], path, ir.DataType.INT32, shape)
        return self._op("Cast", [value], path, dtype, shape, {"to": dtype})

    def _hand_on(self, path: str, module: IntegerMaxPool | Reshape, x: Carrier, shape: tuple[int, ...]) -> Carrier:
        if isinstance(module, Reshape):
            wanted = self.builder.constant(np.array([-1, *module.shape], np.int64), f"{path}.shape")
            value = self._op("Reshape", [x.value, wanted], path, x.dtype, shape)
        else:
            value = self._op("MaxPool", [x.value], path, x.dtype, shape, _max_pool_attributes(module, len(shape) - 1))
        return Carrier(value, x.zero_point, shape, x.largest)

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

    def _describe(self, name: str, scale: torch.Tensor, zero_point: int, kind: str) -> None:
        """What a reader needs to know of a border, as strings that give the float32 back exactly."""
        self.metadata[f"{name}.scale"] = repr(float(scale))
        self.metadata[f"{name}.zero_point"] = str(zero_point)
        self.metadata[f"{name}.type"] = kind


def _scalar(value: int, dtype: ir.DataType) -> np.uint8 | np.int8:
    scalar: np.uint8 | np.int8 = np.uint8(value) if dtype is ir.DataType.UINT8 else np.int8(value)
    return scalar


def _natural(node: Node) -> ir.DataType:
    """The type of a program's own output: of the map that produced its levels."""
    while not isinstance(module_of(node), (IntegerMap, Quantize)):
        node = node.all_input_nodes[0]
    module = module_of(node)
    assert isinstance(module, (IntegerMap, Quantize))
    return ir.DataType.INT8 if module.integer_type.signed else ir.DataType.UINT8


def _max_pool_attributes(module: IntegerMaxPool, rank: int) -> dict[str, object]:
    pool = module.pool

    def sizes(value: int | tuple[int, ...]) -> list[int]:
        return list(value) if isinstance(value, tuple) else [value] * rank

    return {
        "kernel_shape": sizes(pool.kernel_size),
        "strides": sizes(pool.stride),
        "pads": sizes(pool.padding) * 2,
        "dilations": sizes(pool.dilation),
        "ceil_mode": int(pool.ceil_mode),
    }
