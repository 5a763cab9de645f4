"""What a writer has in hand while it writes one node of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.tensor_spec import LevelRange
from ana_fx.target import Target
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor

if TYPE_CHECKING:
    from ana_fx.targets.onnx.dialect import Dialect

__all__ = ["NodeWriter"]


@dataclass(frozen=True)
class NodeWriter:
    """Writes the operators of one node of a program; what never changes meanwhile is bound here.

    Args:
        builder: Collects the operators of the file.
        dialect: Says how levels are stored.
        target: What the file is for.
        path: Path of the node's module; it begins the name of each operator and constant.
        module: The module.
        inputs: What the node reads.
        shape: Sample shape of what it gives.
        weight: The integers that it multiplies with, if there are any.
        dtype: The type of the arithmetic: of operators and numbers that are not given another.
        notes: What the report of the node will say.
        stored_bytes: Bytes of each of its constants in the file, by name.
    """

    builder: Builder
    dialect: Dialect
    target: Target
    path: str
    module: Any
    inputs: tuple[StoredTensor, ...]
    shape: tuple[int, ...]
    weight: Tensor | None = None
    dtype: ir.DataType = ir.DataType.INT32
    notes: dict[str, Any] = field(default_factory=dict)
    stored_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def x(self) -> StoredTensor:
        """The first input."""
        return self.inputs[0]

    @property
    def container(self) -> Container:
        """How the file stores the levels that the module gives."""
        integer_type: IntegerType = self.module.integer_type
        return self.dialect.container(integer_type)

    def typed(self, dtype: ir.DataType) -> NodeWriter:
        """The same writer with arithmetic of another type."""
        return replace(self, dtype=dtype)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value,
        shape: tuple[int, ...] | None = None,
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Write an operator with one output.

        Args:
            op_type: Its name.
            inputs: Its inputs.
            shape: Sample shape of the output, if it is not the node's.
            dtype: Type of the output, if it is not that of the arithmetic.
            domain: Where the operator is from, if not from ONNX.
            attributes: Its attributes.
        """
        return self.builder.op(
            op_type, inputs, path=self.path, dtype=dtype or self.dtype, shape=self.shape if shape is None else shape,
            attributes=attributes, domain=domain,
        )  # fmt: skip

    def constant_op(
        self,
        op_type: str,
        *inputs: ir.Value,
        shape: tuple[int, ...],
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Write an operator on constants, whose output has no batch axis: `shape` is its whole shape."""
        return self.builder.op(
            op_type, inputs, path=self.path, dtype=dtype or self.dtype, shape=shape, attributes=attributes,
            domain=domain, has_batch=False,
        )  # fmt: skip

    def constant(self, array: np.ndarray[Any, Any] | np.generic, name: str) -> ir.Value:
        """Add an array of any type as a constant of that name."""
        value = self.builder.constant(array, f"{self.path}.{name}")
        assert value.const_value is not None
        self.stored_bytes[name] = value.const_value.nbytes
        return value

    def number(self, value: float | np.ndarray[Any, Any], name: str) -> ir.Value:
        """Add a number, or an array, as a constant of the type of the arithmetic."""
        return self.constant(np.asarray(value, self.dtype.numpy()), name)

    def integers(self, numbers: Sequence[int], name: str) -> ir.Value:
        """Add a list of integers as operators take sizes, axes and pads: int64."""
        return self.constant(np.array(numbers, np.int64), name)

    def axes(self, *axes: int) -> ir.Value:
        """Add axes as operators that reduce take them."""
        return self.integers(axes, "axes")

    def cast(self, value: ir.Value, dtype: ir.DataType, shape: tuple[int, ...] | None = None) -> ir.Value:
        """Write a value as another type."""
        if value.dtype is dtype:
            return value
        return self.op("Cast", value, shape=shape, dtype=dtype, to=dtype)

    def reshape(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Write a value with another sample shape; the leading axis takes what is left."""
        return self.builder.reshape(value, shape, path=self.path)

    def shifted(self, x: ir.Value, distance: int, dtype: ir.DataType, shape: tuple[int, ...] | None = None) -> ir.Value:
        """Write 8-bit numbers plus a constant, in a type that may be another."""
        if x.dtype is dtype and distance == 0:
            return x
        if distance:
            integers = self.typed(ir.DataType.INT32)
            x = integers.op("Cast", x, shape=shape, to=integers.dtype)
            x = integers.op("Add", x, integers.number(distance, "shift"), shape=shape)
        return self.op("Cast", x, shape=shape, dtype=dtype, to=dtype)

    def levels(self, x: StoredTensor) -> ir.Value:
        """Write the levels of a stored tensor in the type of the arithmetic."""
        if x.constant is not None:
            return self.number(x.constant, "constant")
        value = self.cast(x.value, self.dtype, x.shape)
        if x.zero_point == 0:
            return value
        return self.op("Sub", value, self.number(x.zero_point, "zero_point"), shape=x.shape)

    def stored(self, value: ir.Value, lo: int | None = None, hi: int | None = None) -> StoredTensor:
        """The levels that the module gives, from `lo` to `hi`, which are the module's unless told otherwise."""
        zero_point = self.container.zero_point
        low, high = (lo, hi) if lo is not None and hi is not None else self._ends()
        return StoredTensor(value, zero_point, self.shape, high + zero_point, low + zero_point)

    def _ends(self) -> tuple[int, int]:
        levels: LevelRange = self.module.level_range
        return levels.lo, levels.hi

    def note(self, **notes: Any) -> None:
        """Let the report of the node say this, of the fields of `NodeReport`."""
        self.notes.update(notes)

    def report(self) -> NodeReport:
        """How the node stands in the file."""
        return NodeReport(self.path, **self.notes).with_weights(self.module, self.stored_bytes)
