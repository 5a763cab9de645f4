"""Values of a program as plain data: JSON, and tensors that are stored beside it.

An object is {"is": its class, argument: value, …}, with the arguments of its constructor. Classes are those of a
closed list, arguments must have the types that the constructor declares: reading builds nothing else and runs no
code of the file.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from ana_fx.annealing.ordering import OrderBreak
from ana_fx.layers.norms import ChannelAffine
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import ClipRange
from ana_fx.layers.softmax_map import SoftmaxForm
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.operator_list import operators
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision
from ana_fx.precision.rounding import Rounding
from ana_fx.program.data_movement import Concat, Pad, Permute, Rearrange, Reshape, Slice, Take
from ana_fx.program.integer_layers import IntegerHead, IntegerMap, IntegerThresholds
from ana_fx.program.integer_modules import IntegerConstant, IntegerMaxPool, IntegerSoftmax, IntegerTable, Repeat
from ana_fx.program.program_borders import Dequantize, Quantize, QuantizeFloat, QuantizeImage
from ana_fx.requantizers.fixed_point_staircase import FixedPointStaircase
from ana_fx.requantizers.multiply_shift import MultiplyShift
from ana_fx.requantizers.staircase import QLinearStaircase, ShiftStaircase
from ana_fx.schedule.schedule import AnnealingRange, LayerSchedule

__all__ = ["MODULES", "Plain", "Reader", "Store"]

Plain = Any  # what JSON can say

MODULES: tuple[type[nn.Module], ...] = (
    OperatorMap, Concat, Dequantize, IntegerConstant, IntegerHead, IntegerMap, IntegerMaxPool, IntegerSoftmax,
    IntegerTable, IntegerThresholds, Pad, Permute, Quantize, QuantizeFloat, QuantizeImage, Rearrange, Repeat, Reshape,
    Slice, Take,
)  # fmt: skip
_VALUES: tuple[type, ...] = (
    AnnealingRange, ChannelAffine, ClipRange, FixedPointStaircase, ImageInput, IntegerType, LayerSchedule,
    MultiplyShift, OrderBreak, Precision, QLinearStaircase, Rounding, ShiftStaircase, SoftmaxForm, *operators(),
)  # fmt: skip
_WRITTEN = {"OperatorMap": "AffineMap", "operator": "affine"}  # names that files of format 1 know by others
_READ = {written: name for name, written in _WRITTEN.items()}
_KINDS: dict[str, type] = {_WRITTEN.get(kind.__name__, kind.__name__): kind for kind in (*MODULES, *_VALUES)}
_FORMS: dict[type, Callable[[Any], dict[str, Any]]] = {
    IntegerSoftmax: lambda each: {
        "axis": each.axis,
        "form": SoftmaxForm(each.table, each.highest, each.is_nearest, each.output_scale),
        "integer_type": each.integer_type,
    },
    IntegerType: lambda each: {
        name: value for name, value in vars(each).items() if value or name not in ("levels", "thresholds")
    },
    Precision: lambda each: {name: value for name, value in _arguments(each).items() if value or name != "stays_float"},
}  # arguments that are no attributes, or that files of older versions do not name
_LARGEST_INTEGER = 2**31
_LARGEST_SIZE = 2**24  # of a number in a tuple: sizes, strides, pads
_LONGEST_TEXT = 10_000
_DEEPEST = 50


class Store:
    """Takes values apart; what it was given as tensors is in `arrays`."""

    def __init__(self) -> None:
        self.arrays: dict[str, Tensor] = {}

    def plain(self, value: object) -> Plain:
        """A value as JSON.

        Raises:
            ValueError: It holds something that is not on the list.
        """
        if isinstance(value, Enum):
            return {"is": self._kind(value), "value": value.value}
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"is": "float", "value": repr(value)}
        if isinstance(value, (tuple, list)):
            return [self.plain(each) for each in value]
        if isinstance(value, Mapping):
            return {"is": "map", "items": [[str(key), self.plain(each)] for key, each in value.items()]}
        if isinstance(value, Tensor):
            name = f"{len(self.arrays):06}"
            self.arrays[name] = value
            return {"is": "array", "name": name}
        kind = self._kind(value)
        arguments = _FORMS[type(value)](value) if type(value) in _FORMS else _arguments(value)
        return {"is": kind} | {_WRITTEN.get(name, name): self.plain(each) for name, each in arguments.items()}

    def _kind(self, value: object) -> str:
        kind = _WRITTEN.get(type(value).__name__, type(value).__name__)
        if _KINDS.get(kind) is not type(value):
            raise ValueError(f"found {type(value).__module__}.{kind}, which is none of {', '.join(_KINDS)}")
        return kind


def _arguments(value: object) -> dict[str, Any]:
    names = [name for name in inspect.signature(type(value).__init__).parameters if name != "self"]
    if type(value).__init__ in (object.__init__, nn.Module.__init__):
        names = []
    return {name: getattr(value, name) for name in names}


class Reader:
    """Builds values from JSON and the tensors beside it, each of which is used once."""

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        self._arrays = dict(arrays)

    def value(self, plain: Plain, kind: Any, depth: int = 0) -> Any:
        """A value of a type: a class of the list, or an annotation made of those.

        Raises:
            ValueError: The JSON says something else.
        """
        if depth > _DEEPEST:
            raise ValueError("found values that are nested too deeply")
        origin = get_origin(kind)
        if origin in (typing.Union, types.UnionType):
            return self._any_of(plain, get_args(kind), depth)
        if origin is tuple and isinstance(plain, list):
            return self._tuple(plain, get_args(kind), depth)
        if origin is not None and issubclass(origin, Sequence) and isinstance(plain, list):
            return self._tuple(plain, (*get_args(kind), ...), depth)
        if origin is not None and issubclass(origin, Mapping) and _is(plain, "map"):
            return self._map(plain, get_args(kind)[1], depth)
        if kind is float and _is(plain, "float"):
            return _special_float(plain)
        if kind is float and type(plain) in (int, float) and math.isfinite(plain):
            return plain
        if kind is int and type(plain) is int and abs(plain) <= _LARGEST_INTEGER:
            return plain
        if kind is bool and type(plain) is bool:
            return plain
        if kind is str and isinstance(plain, str) and len(plain) <= _LONGEST_TEXT:
            return plain
        if kind is types.NoneType and plain is None:
            return None
        if kind in (Tensor, nn.Parameter) and _is(plain, "array"):
            return self._tensor(plain, kind)
        if isinstance(kind, type) and isinstance(plain, dict):
            return self._object(plain, kind, depth)
        raise ValueError(f"found {_short(plain)}, needed {getattr(kind, '__name__', kind)}")

    def unused(self) -> list[str]:
        """The tensors that no value has."""
        return list(self._arrays)

    def _any_of(self, plain: Plain, kinds: tuple[Any, ...], depth: int) -> Any:
        for kind in kinds:
            if _may_be(plain, kind):
                return self.value(plain, kind, depth)
        raise ValueError(f"found {_short(plain)}, needed one of {', '.join(str(each) for each in kinds)}")

    def _tuple(self, plain: list[Plain], kinds: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
        if kinds[1:] == (...,):
            kinds = kinds[:1] * len(plain)
        if len(plain) != len(kinds):
            raise ValueError(f"found {len(plain)} values, needed {len(kinds)}")
        if any(type(each) is int and abs(each) > _LARGEST_SIZE for each in plain):
            raise ValueError(f"found a size above {_LARGEST_SIZE:,}")
        return tuple(self.value(each, kind, depth + 1) for each, kind in zip(plain, kinds, strict=True))

    def _map(self, plain: dict[str, Plain], kind: Any, depth: int) -> dict[str, Any]:
        items = plain.get("items")
        if not isinstance(items, list) or not all(isinstance(item, list) and len(item) == 2 for item in items):
            raise ValueError("found a map without its items")
        return {self.value(key, str): self.value(each, kind, depth + 1) for key, each in items}

    def _tensor(self, plain: dict[str, Plain], kind: type[Tensor]) -> Tensor:
        name = plain.get("name")
        if not isinstance(name, str) or name not in self._arrays:
            raise ValueError(f"found no array {_short(name)}, or one that is used twice")
        tensor = self._arrays.pop(name)
        return nn.Parameter(tensor, requires_grad=False) if kind is nn.Parameter else tensor

    def _object(self, plain: dict[str, Plain], base: type, depth: int) -> Any:
        kind = _KINDS.get(plain["is"]) if isinstance(plain.get("is"), str) else None
        if kind is None or not issubclass(kind, base):
            raise ValueError(f"found an object of {_short(plain.get('is'))}, needed {base.__name__}")
        given = {_READ.get(name, name): each for name, each in plain.items() if name != "is"}
        if issubclass(kind, Enum):
            return kind(given.get("value"))
        hints = get_type_hints(kind.__init__)
        if not given.keys() <= hints.keys() - {"return"}:
            raise ValueError(f"found {_short(sorted(given.keys() - hints.keys()))} of {kind.__name__}")
        arguments = {name: self.value(each, hints[name], depth + 1) for name, each in given.items()}
        try:
            made = kind(**arguments)
        except (TypeError, IndexError, RuntimeError, AssertionError) as error:
            raise ValueError(f"cannot make {kind.__name__}: {_short(error)}") from error
        return made.eval() if isinstance(made, nn.Module) else made


def _is(plain: Plain, kind: str) -> bool:
    return isinstance(plain, dict) and plain.get("is") == kind


def _may_be(plain: Plain, kind: Any) -> bool:
    """Whether JSON is of the sort that a type is written as."""
    if get_origin(kind) is not None:
        return isinstance(plain, list) or _is(plain, "map")
    if isinstance(plain, dict):
        name = plain.get("is")
        if name == "array":
            return kind in (Tensor, nn.Parameter)
        if name == "float":
            return kind is float
        known = _KINDS.get(name) if isinstance(name, str) else None
        return known is not None and isinstance(kind, type) and issubclass(known, kind)
    return kind is type(plain) or (kind is float and type(plain) is int)


def _special_float(plain: dict[str, Plain]) -> float:
    if plain.get("value") not in ("inf", "-inf"):
        raise ValueError(f"found {_short(plain.get('value'))}, needed inf or -inf")
    return float(plain["value"])


def _short(value: object) -> str:
    return repr(value)[:60] if not isinstance(value, Exception) else str(value).split("\n")[0][:200]
