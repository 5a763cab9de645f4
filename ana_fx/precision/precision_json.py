"""Precisions as plain JSON: what a state keeps, so that a model can be prepared again as it was.

A type is written by its name, "uint4", where the name says all, else by its fields. What has its default is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.precision import Precision

__all__ = ["precision_from_json", "precision_to_json", "type_from_json", "type_to_json"]

_TYPES = ("weight", "activation", "first", "last")


def precision_to_json(precision: Precision) -> dict[str, Any]:
    """What `json.dumps` takes, and `precision_from_json` makes an equal Precision of.

    >>> precision_to_json(Precision("int4", "uint4", overrides={"head": "int8"}))["overrides"]["head"]["weight"]
    'int8'
    """
    default = Precision()
    written: dict[str, Any] = {
        "weight": _weight_to_json(precision.weight),
        "activation": type_to_json(precision.activation),
    }
    if precision.input != default.input:
        written["input"] = _input_to_json(precision.input)
    if precision.output != default.output:
        written["output"] = precision.output
    if precision.rounding != default.rounding:
        written["rounding"] = precision.rounding.value
    for name in ("first", "last"):
        if getattr(precision, name) is not None:
            written[name] = _weight_to_json(getattr(precision, name))
    if precision.stays_float:
        written["stays_float"] = True
    if precision.overrides:
        written["overrides"] = {name: precision_to_json(each) for name, each in precision.overrides.items()}
    return written


def precision_from_json(written: Any) -> Precision:
    """The Precision that `precision_to_json` wrote.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(written, Mapping) or not {"weight", "activation"} <= written.keys():
        raise ValueError(f"a precision is written as an object with a weight and an activation, got {written!r:.80}")
    known = {each.name for each in fields(Precision)}
    if not written.keys() <= known:
        raise ValueError(f"a precision has no {', '.join(sorted(written.keys() - known))}; a newer ana_fx wrote it")
    values = dict(written)
    values |= {name: type_from_json(values[name]) for name in _TYPES if name in values}
    if "input" in values:
        values["input"] = _input_from_json(values["input"])
    if "overrides" in values:
        values["overrides"] = {name: precision_from_json(each) for name, each in _object(values["overrides"]).items()}
    return Precision(**values)


def type_to_json(
    integer_type: IntegerType, parse: Callable[[str], IntegerType] = IntegerType.parse
) -> str | dict[str, Any]:
    """The name of a type if `parse` makes it of that, else its fields."""
    name = str(integer_type)
    try:
        is_said = parse(name) == integer_type
    except ValueError:
        is_said = False
    if is_said:
        return name
    written = {each.name: getattr(integer_type, each.name) for each in fields(integer_type)}
    return {key: value for key, value in written.items() if value != () or key not in ("levels", "thresholds")}


def type_from_json(written: Any) -> IntegerType:
    """The type that `type_to_json` wrote; ValueError if it is something else."""
    if isinstance(written, str):
        return IntegerType.parse(written)
    try:
        return IntegerType(**_object(written))
    except TypeError as error:
        raise ValueError(f"an integer type has other fields than {written!r:.80}") from error


def _weight_to_json(weight: IntegerType) -> str | dict[str, Any]:
    """As `type_to_json`; eight bits of a weight need not say that they are symmetric."""
    return type_to_json(weight, lambda name: Precision(name).weight)


def _input_to_json(given: IntegerType | ImageInput | str) -> Any:
    if isinstance(given, ImageInput):
        return {"image": asdict(given)}
    return type_to_json(given) if isinstance(given, IntegerType) else given


def _input_from_json(written: Any) -> IntegerType | ImageInput | str:
    if written == "auto":
        return "auto"
    if isinstance(written, Mapping) and "image" in written:
        image = _object(written["image"])
        try:
            return ImageInput(**image)
        except TypeError as error:
            raise ValueError(f"an image input has other fields than {written!r:.80}") from error
    return type_from_json(written)


def _object(written: Any) -> Mapping[str, Any]:
    if not isinstance(written, Mapping):
        raise ValueError(f"needed an object, got {written!r:.80}")
    return written
