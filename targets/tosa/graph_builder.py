"""Collects the tensors and operators of a .tosa file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.tosa.tosa_schema import ATTRIBUTES, TOSA_SCHEMA, VERSION, DataType, Op

__all__ = ["GraphBuilder"]

Array = np.ndarray[Any, Any]

_TYPES = {np.dtype(np.int8): DataType.INT8, np.dtype(np.int32): DataType.INT32}
_MAIN = "main"


class GraphBuilder:
    """Collects tensors and operators, then packs them.

    Tensors that depend on the input have a leading batch axis of 1: shapes of TOSA are constants.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: dict[int, dict[str, Any]] = {}
        self.shapes: dict[int, dict[str, Any]] = {}
        self.operators: list[dict[str, Any]] = []
        self.inputs: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}

    def tensor(self, name: str, shape: Sequence[int], kind: DataType = DataType.INT8, batch: int = 1) -> int:
        """A tensor that an operator gives, or an input; `shape` is that of a sample."""
        return self._tensor(name, (batch, *shape), kind, {})

    def constant(self, name: str, array: Array) -> int:
        """A tensor with numbers; a constant that is there already is used again."""
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        key = (array.dtype.str, array.shape, data)
        if key not in self._constants:
            self._constants[key] = index = self._tensor(name, array.shape, _TYPES[array.dtype], {"data": data})
            self.operator(Op.CONST, [], index)
        return self._constants[key]

    def shape(self, name: str, values: Sequence[int]) -> int:
        """A constant shape; one that is there already is used again."""
        key = ("shape", *values)
        if key not in self._constants:
            self._constants[key] = index = self._name(name)
            self.shapes[index] = {"rank": len(values), "data": np.array(values, "<i8").tobytes()}
            self.operator(Op.CONST_SHAPE, [], index)
        return self._constants[key]

    def operator(self, op: Op, inputs: Sequence[int], output: int, **attributes: Any) -> None:
        """An operator with one output."""
        entry = {"op": op, "attribute_type": op, "attribute": (ATTRIBUTES[op], attributes)}
        self.operators.append(entry | {"inputs": list(inputs), "outputs": [output]})

    def pack(self, metadata: Mapping[str, str]) -> bytes:
        """The file; its first operator's location, which is free text to readers, has the metadata as JSON."""
        names = self._unique_names()
        operators = [
            each | {key: [names[index] for index in each[key]] for key in ("inputs", "outputs")}
            for each in self.operators
        ]
        operators[0]["location"] = {"text": json.dumps(metadata)}
        block = {
            "name": _MAIN,
            "operators": operators,
            "tensors": [{"name": names[index], **each} for index, each in self.tensors.items()],
            "inputs": [names[index] for index in self.inputs.values()],
            "outputs": [names[index] for index in self.outputs.values()],
            "shapes": [{"name": names[index], **each} for index, each in self.shapes.items()],
        }
        major, minor, patch = VERSION
        version = {"_major": major, "_minor": minor, "_patch": patch, "_draft": 0}
        return pack_tables(TOSA_SCHEMA, {"version": version, "regions": [{"name": _MAIN, "blocks": [block]}]})

    def _tensor(self, name: str, shape: Sequence[int], kind: DataType, rest: Mapping[str, Any]) -> int:
        index = self._name(name)
        self.tensors[index] = {"shape": list(shape), "type": kind, **rest}
        return index

    def _name(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def _unique_names(self) -> list[str]:
        """A name for each that nothing else has, for operators know what they read by name; borders keep theirs."""
        borders = {index: name for ends in (self.inputs, self.outputs) for name, index in ends.items()}
        known, unique, counts = set(borders.values()), [], Counter[str]()
        for index, name in enumerate(self.names):
            own = borders.get(index, name)
            while index not in borders and own in known:
                counts[name] += 1
                own = f"{name}.{counts[name]}"
            known.add(own)
            unique.append(own)
        return unique
