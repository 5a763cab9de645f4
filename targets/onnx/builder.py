"""Writing ONNX graphs: typed values, named nodes, constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["BATCH", "Builder", "sample_shape"]

BATCH = "N"  # the name of the dynamic leading axis, and "N*4" of one that is four times as long


_NARROW = {ir.DataType.INT4: (21, 10), ir.DataType.INT2: (25, 13)}  # opset and IR version that have a type


class Builder:
    """Collects the nodes of one graph. Every value carries its type and shape.

    Node names are paths: the layer map's module path, then the operator, as Netron shows them.
    """

    def __init__(self) -> None:
        self._tape = ir.tape.Tape()
        self._names: dict[str, int] = {}
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._domains: set[str] = set()
        self._oldest = (0, 0)  # opset and IR version that the constants need

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        path: str,
        dtype: ir.DataType,
        shape: tuple[int, ...],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        rows: int | None = None,
        has_batch: bool = True,
    ) -> ir.Value:
        """Add a node with one output of that type and sample shape, and return the output.

        Its leading axis is as long as that of its first input with a batch, or `rows` times the batch:
        onnxruntime takes two axes of one name for equal when it shares memory. Without a batch `shape`
        is the whole shape.
        """
        if rows is None:
            rows = next((each for value in inputs if value is not None and (each := _rows(value))), 1)
        leading = [BATCH if rows == 1 else f"{BATCH}*{rows}"] if has_batch else []
        name = self._unique(f"{path}/{op_type}")
        self._domains |= {domain} - {""}
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([*leading, *shape]))
        return self._tape.op(op_type, inputs, attributes, domain=domain, name=name, output=output)

    def reshape(self, value: ir.Value, shape: tuple[int, ...], *, path: str) -> ir.Value:
        """A value with another sample shape; the leading axis takes what is left."""
        old = sample_shape(value)
        if old == shape:
            return value
        assert value.dtype is not None
        wanted = self.constant(np.array([-1, *shape], np.int64), f"{path}.shape")
        rows = _rows(value) * math.prod(old) // math.prod(shape)
        return self.op("Reshape", [value, wanted], path=path, dtype=value.dtype, shape=shape, rows=rows)

    def constant(self, array: np.ndarray[Any, Any] | np.generic, name: str) -> ir.Value:
        """Add an initialiser."""
        tensor = ir.tensor(np.asarray(array))
        self._oldest = max(self._oldest, _NARROW.get(tensor.dtype, self._oldest))
        return self._tape.initializer(tensor, self._unique(name))

    def input(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        """Add a graph input with a leading batch axis."""
        value = ir.Value(name=self._unique(name), type=ir.TensorType(dtype), shape=ir.Shape([BATCH, *shape]))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str) -> None:
        """Make a value a graph output of that name."""
        if value in self.inputs or value in self.outputs:
            assert value.dtype is not None
            value = self.op("Identity", [value], path=name, dtype=value.dtype, shape=sample_shape(value))
        value.name = self._unique(name)
        self.outputs.append(value)

    def model(self, *, name: str, opset: int, ir_version: int, metadata: Mapping[str, str]) -> ir.Model:
        """The finished model, of that opset and IR version, or of later ones where its constants need them."""
        opset, ir_version = max((opset, ir_version), self._oldest)
        opsets = {"": opset} | dict.fromkeys(sorted(self._domains), 1)
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self._tape.nodes,
            initializers=[
                value for value in self._tape.initializers if value.uses()
            ],  # some have a use in one dialect only
            opset_imports=opsets,
            name=name,
        )
        return ir.Model(graph, ir_version=ir_version, producer_name="ana_fx", metadata_props=dict(metadata))

    def _unique(self, name: str) -> str:
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        return name if number == 0 else f"{name}_{number}"


def sample_shape(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value without its leading axis."""
    assert value.shape is not None
    return tuple(int(size) for size in value.shape.dims[1:])  # type: ignore[arg-type]  # only the batch is symbolic


def _rows(value: ir.Value) -> int:
    """How often the batch's length the leading axis has: 4 for "N*4"; 0 without a batch."""
    if value.shape is None or not value.shape.dims or isinstance(value.shape[0], int):
        return 0
    _, _, factor = str(value.shape[0]).partition("*")
    return int(factor or 1)
