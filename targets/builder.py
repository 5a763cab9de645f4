"""Writing ONNX graphs: typed values, named nodes, constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["BATCH", "Builder"]

BATCH = "N"  # the name of the dynamic leading axis


class Builder:
    """Collects the nodes of one graph. Every value carries its type and shape.

    Node names are paths: the layer map's module path, then the operator, as Netron shows them.
    """

    def __init__(self) -> None:
        self._tape = ir.tape.Tape()
        self._names: dict[str, int] = {}
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.uses_contrib = False

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
    ) -> ir.Value:
        """Add a node with one output of that type and sample shape, and return the output."""
        name = self._unique(f"{path}/{op_type}")
        self.uses_contrib |= domain != ""
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape([BATCH, *shape]))
        return self._tape.op(op_type, inputs, attributes, domain=domain, name=name, output=output)

    def constant(self, array: np.ndarray[Any, Any] | np.generic, name: str) -> ir.Value:
        """Add an initialiser."""
        return self._tape.initializer(ir.tensor(np.asarray(array)), self._unique(name))

    def input(self, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        """Add a graph input with a leading batch axis."""
        value = ir.Value(name=self._unique(name), type=ir.TensorType(dtype), shape=ir.Shape([BATCH, *shape]))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str) -> None:
        """Make a value a graph output of that name."""
        if value in self.inputs:
            assert value.dtype is not None
            assert value.shape is not None
            value = self.op("Identity", [value], path=name, dtype=value.dtype, shape=tuple(value.shape.dims[1:]))  # type: ignore[arg-type]  # only the batch is symbolic
        value.name = self._unique(name)
        self.outputs.append(value)

    def model(self, *, name: str, opset: int, ir_version: int, metadata: Mapping[str, str]) -> ir.Model:
        """The finished model."""
        opsets = {"": opset} | ({"com.microsoft": 1} if self.uses_contrib else {})
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports=opsets,
            name=name,
        )
        return ir.Model(graph, ir_version=ir_version, producer_name="ana_fx", metadata_props=dict(metadata))

    def _unique(self, name: str) -> str:
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        return name if number == 0 else f"{name}_{number}"
