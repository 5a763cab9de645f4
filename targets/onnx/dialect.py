"""A dialect of ONNX: a table from what stands in a program to the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

import onnx
import onnx_ir as ir
from torch import nn
from torch.fx import GraphModule

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.program.integer_layers import IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.program_borders import Quantize, QuantizeFloat
from ana_fx.target import Target
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor
from ana_fx.text.wording import brief

__all__ = ["Dialect", "Writer", "Writers", "dialect_of"]

_WITH_OPERATORS = (IntegerHead, IntegerMap, IntegerThresholds, OperatorMap)

Writer = Callable[[NodeWriter, Any], StoredTensor]
Writers = Mapping[type, Writer]


def _take(w: NodeWriter, x: ir.Value) -> ir.Value:
    """Stored levels from the integers that a file takes."""
    dtype, zero_point = w.container
    return w.shifted(x, zero_point - (w.module.integer_type.zero_point or 0), dtype)


def _as_it_is(natural: ir.DataType) -> ir.DataType:
    return natural


def _no_misfits(program: GraphModule) -> list[str]:
    return []


def _unchanged(model: ir.Model) -> ir.Model:
    return model


def _no_companions(program: GraphModule, model: onnx.ModelProto, name: str) -> dict[str, bytes]:
    return {}


@dataclass(frozen=True)
class Dialect:
    """How a program is written: five tables of writers, and how levels are stored.

    A writer takes a node writer and the operator or module that it writes, and returns the levels that it wrote. A
    class is looked up as it is, so that no subclass is taken for its base.

    Args:
        operators: Writers of layer maps, by the class of their operator.
        heads: Writers of last layers with int32 outputs, by the class of their operator.
        codebooks: Writers of layer maps with the levels of a codebook, by the class of their operator.
        float_layers: Writers of layers that stay in floats, by the class of their operator.
        modules: Writers of all other modules of a program, by their class.
        container: How levels of a type are stored.
        border: The type in which a file takes and gives numbers of a type at its integer borders.
        take: Writes stored levels from what the file takes at an integer border.
        opset: Version of ONNX's operators.
        ir_version: Version of ONNX's files.
        misfits: Says what of a program the dialect cannot hold although the target's description can, a line each.
        finish: Changes a model to what the dialect's readers want beyond its operators.
        companions: Makes the files that readers expect beside the model, by name; it is given the program, the model
            and the name of its file.
        foreign_attributes: Attributes of its operators that ONNX does not have; ONNX's checker does not see them.
        more_operators: (domain, name) of operators that a file may hold beyond those of the built-in dialects.
    """

    operators: Writers
    heads: Writers
    codebooks: Writers
    float_layers: Writers
    modules: Writers
    container: Callable[[IntegerType], Container]
    border: Callable[[ir.DataType], ir.DataType] = _as_it_is
    take: Callable[[NodeWriter, ir.Value], ir.Value] = _take
    opset: int = 19
    ir_version: int = 9
    misfits: Callable[[GraphModule], list[str]] = _no_misfits
    finish: Callable[[ir.Model], ir.Model] = _unchanged
    companions: Callable[[GraphModule, onnx.ModelProto, str], dict[str, bytes]] = _no_companions
    foreign_attributes: frozenset[str] = field(default=frozenset())
    more_operators: frozenset[tuple[str, str]] = field(default=frozenset())

    def __post_init__(self) -> None:
        for name in ("operators", "heads", "codebooks", "float_layers", "modules"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def extended(self, writers: Writers | None = None, **settings: Any) -> Dialect:
        """The dialect with other writers, or other settings; this one stays as it is.

        Args:
            writers: Writers of operators, of layer maps that is, and of modules, by class.
            settings: Fields of the dialect.

        Examples:
            >>> from ana_fx.operators.sum import Sum
            >>> from ana_fx.targets.dialects.integer import INTEGER
            >>> def write_sum(w, op):
            ...     return INTEGER.operators[Sum](w, op)
            >>> INTEGER.extended({Sum: write_sum}, opset=21).opset
            21
        """
        given = writers or {}
        operators = {kind: writer for kind, writer in given.items() if issubclass(kind, Operator)}
        modules = {kind: writer for kind, writer in given.items() if kind not in operators}
        tables = {"operators": {**self.operators, **operators}, "modules": {**self.modules, **modules}}
        return replace(self, **{**tables, **settings})

    def writer(self, module: nn.Module) -> Writer | None:
        """What writes a module; None if the dialect has nothing for it."""
        tables = {
            IntegerHead: self.heads,
            IntegerMap: self.operators,
            IntegerThresholds: self.codebooks,
            OperatorMap: self.float_layers,
        }
        kind = Quantize if type(module) is QuantizeFloat else type(self.subject(module))  # what follows is the same
        return tables.get(type(module), self.modules).get(kind)

    def subject(self, module: nn.Module) -> object:
        """What the writer of a module is given and found by: its operator if it has one, else the module itself."""
        return module.operator if type(module) in _WITH_OPERATORS else module


def dialect_of(target: Target) -> Dialect:
    """The dialect that a target's `emitter` names, "module:object".

    Raises:
        TypeError: It names something else.
    """
    module, _, name = target.emitter.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, Dialect):
        raise TypeError(f"emitter {target.emitter!r} of target {target.name!r} is {brief(found)}, needed a Dialect")
    return found
