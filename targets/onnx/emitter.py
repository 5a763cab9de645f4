"""What writes the files of a target, and what a file report says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
from torch import Tensor
from torch.fx import GraphModule

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.integer_modules import IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.program.program_borders import Quantize, QuantizeImage
from ana_fx.target import Target
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.file_borders import dequantize_linear, quantize_image, quantize_linear, shift
from ana_fx.targets.onnx.write_max_pool import write_max_pool

__all__ = ["Carrier", "Emitter", "NodeReport", "emitter_class", "numpy"]


@dataclass(frozen=True)
class Carrier:
    """A value of the file that carries levels: stored number = level + zero_point.

    `shape` is that of one sample, `largest` the largest stored number that occurs, `smallest` the smallest. Of a
    constant, which has no batch axis, `constant` holds the levels and `shape` is the whole shape.
    """

    value: ir.Value
    zero_point: int
    shape: tuple[int, ...]
    largest: int = 255
    smallest: int = -128
    constant: np.ndarray[Any, Any] | None = None

    @property
    def dtype(self) -> ir.DataType:
        """The stored type."""
        assert self.value.dtype is not None
        return self.value.dtype


@dataclass(frozen=True)
class NodeReport:
    """How one layer map stands in the file.

    Args:
        name: Module path.
        operator: The ONNX operator that carries it.
        arithmetic: Type of the requantisation arithmetic.
        needs_vnni: Whether an x86 kernel without VNNI could saturate on it.
        reason: Why this operator, where a faster one was not proven equal.
        pair_sum: The largest absolute sum of two neighbouring products that its inputs can give, where some kernel
            adds these in 16 bits; None where none does. At most 32,767, unless it needs VNNI.
    """

    name: str
    operator: str
    arithmetic: str
    needs_vnni: bool = False
    reason: str = ""
    pair_sum: int | None = None


@dataclass(frozen=True)
class Emitter(ABC):
    """Writes a dialect of ONNX. A subclass says how levels are stored and how layer maps are written.

    Args:
        target: What it writes for.
    """

    target: Target
    opset: ClassVar[int] = 19
    ir_version: ClassVar[int] = 9
    pads_max_pools: ClassVar[bool] = False  # whether MaxPool does so itself; readers disagree on uneven pads
    writes_zero_pads: ClassVar[bool] = False  # whether a MaxPool without pads says so in numbers
    more_operators: ClassVar[frozenset[tuple[str, str]]] = frozenset()  # (domain, name) that only this emitter writes

    def misfits(self, program: GraphModule) -> list[str]:
        """What of a program this dialect cannot hold although the target's description can, a line for each."""
        return []

    @abstractmethod
    def container(self, integer_type: IntegerType) -> tuple[ir.DataType, int]:
        """The stored type and zero point of levels of that type."""

    def border(self, natural: ir.DataType) -> ir.DataType:
        """The type in which the file takes and gives numbers of that type with integer borders."""
        return natural

    def take(
        self, builder: Builder, path: str, integer_type: IntegerType, x: ir.Value, shape: tuple[int, ...]
    ) -> ir.Value:
        """Stored levels from what the file takes with integer borders."""
        dtype, zero_point = self.container(integer_type)
        return shift(builder, path, x, shape, zero_point - (integer_type.zero_point or 0), dtype)

    def quantize(self, builder: Builder, path: str, module: Quantize, x: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Stored levels from reals."""
        if isinstance(module, QuantizeImage):
            pixels = quantize_image(builder, path, numpy(module.gain), numpy(module.shift), x, shape)
            return self.take(builder, path, module.integer_type, pixels, shape)
        return quantize_linear(builder, path, module, x, shape, self.container(module.integer_type))

    def dequantize(self, builder: Builder, path: str, x: Carrier, scale: np.ndarray[Any, Any]) -> ir.Value:
        """Reals from stored levels or logits."""
        return dequantize_linear(builder, path, x.value, x.zero_point, scale, x.shape)

    def max_pool(
        self, builder: Builder, path: str, module: IntegerMaxPool, x: Carrier, shape: tuple[int, ...]
    ) -> Carrier:
        """Write a max pool."""
        settings = {"pads_itself": self.pads_max_pools, "writes_zero_pads": self.writes_zero_pads}
        value = write_max_pool(builder, path, module, x.value, x.shape, shape, **settings)
        return Carrier(value, x.zero_point, shape, x.largest, x.smallest)

    def finish(self, model: ir.Model) -> ir.Model:
        """The model as the dialect's readers want it beyond its operators."""
        return model

    def companions(self, program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
        """Files that the dialect's readers expect beside the model.

        Args:
            program: What was written.
            model: The file.
            name: The file's name.
        """
        return {}

    @abstractmethod
    def integer_map(
        self,
        builder: Builder,
        path: str,
        module: IntegerMap,
        inputs: Sequence[Carrier],
        shape: tuple[int, ...],
    ) -> tuple[Carrier, NodeReport]:
        """Write a layer map whose output sample has that shape."""

    @abstractmethod
    def head(
        self, builder: Builder, path: str, module: IntegerHead, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Write a head with int32 logits."""

    @abstractmethod
    def table(
        self, builder: Builder, path: str, module: IntegerTable, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Write a function of each level."""

    @abstractmethod
    def softmax(
        self, builder: Builder, path: str, module: IntegerSoftmax, x: Carrier, shape: tuple[int, ...]
    ) -> tuple[Carrier, NodeReport]:
        """Write a softmax."""


def emitter_class(target: Target) -> type[Emitter]:
    """The class that writes a target's files."""
    module, _, name = target.emitter.partition(":")
    found: type[Emitter] = getattr(import_module(module), name)
    return found


def numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The tensor as an array of its own type."""
    return np.asarray(tensor.detach().cpu().numpy())
