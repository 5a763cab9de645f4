"""How many bits each tensor gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.precision.image_input import ImageInput
from ana_fx.precision.rounding import Rounding
from ana_fx.text.patterns import matches
from ana_fx.text.wording import brief, unknown

__all__ = ["Precision"]

_OUTPUTS = ("auto", "int32", "int8", "float")


@dataclass(frozen=True)
class Precision:
    """Widths of weights, activations, inputs and outputs.

    Args:
        weight: Type of the weights: `"bipolar"` (−1 and 1), `"ternary"`, `"int2"` … `"int8"` (eight bits are
            symmetric), or an `IntegerType.of_levels(…)`.
        activation: Type of the activations. An unsigned one is used where a tensor is never
            negative, and its signed sibling of the same width elsewhere. `"ternary"`, one bit
            (`"bipolar"`, `"uint1"`) and levels of your own replace the activation function; other signed types keep it.
        input: `"auto"` (eight bits, unsigned if the example inputs are never negative), a type, or an
            `ImageInput` where the integers that come in are the pixels of an image.
        output: `"int32"` (raw accumulators of a linear head), `"int8"`, `"float"` (the last layer
            stays float) or `"auto"` (int32 for a linear head, else int8).
        rounding: `"nearest"`, or `"floor"` as in the text of the paper.
        first: Type of the weights of the layers that read a model input, None for that of all others. At two bits
            and fewer, eight bits here and in `last` cost little memory and give back much accuracy.
        last: The same for the layers whose output leaves the model.
        overrides: For module paths that match a pattern (`"blocks.*.conv"`), and for all that lies inside a module
            that is named (`"blocks.2"`), another Precision, its name, or `"float"`; the last match counts.
        stays_float: Whether layers stay in floats, which overrides alone can say: `"float"` is short for this
            precision with `stays_float`. What integers follow such a layer get has the type `activation`.

    Raises:
        ValueError: A name is unknown, or a weight type is unsigned.
        TypeError: `overrides` is no mapping, or a pattern no string.
    """

    weight: IntegerType
    activation: IntegerType
    input: IntegerType | ImageInput | str = "auto"
    output: str = "auto"
    rounding: Rounding = Rounding.NEAREST
    first: IntegerType | None = None
    last: IntegerType | None = None
    overrides: Mapping[str, Precision] = field(default_factory=dict[str, "Precision"])
    stays_float: bool = False

    def __init__(
        self,
        weight: IntegerType | str = "int8",
        activation: IntegerType | str = "uint8",
        input: IntegerType | ImageInput | str = "auto",  # the name that the user's contract fixes
        output: str = "auto",
        *,
        rounding: Rounding | str = Rounding.NEAREST,
        first: IntegerType | str | None = None,
        last: IntegerType | str | None = None,
        overrides: Mapping[str, Precision | str] | None = None,
        stays_float: bool = False,
    ) -> None:
        if output not in _OUTPUTS:
            raise ValueError(unknown("output", output, _OUTPUTS))
        object.__setattr__(self, "weight", _weight_type(weight))
        object.__setattr__(self, "activation", _type(activation))
        object.__setattr__(self, "input", input if input == "auto" or isinstance(input, ImageInput) else _input(input))
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "rounding", _rounding(rounding))
        object.__setattr__(self, "first", None if first is None else _weight_type(first))
        object.__setattr__(self, "last", None if last is None else _weight_type(last))
        object.__setattr__(self, "stays_float", stays_float)
        object.__setattr__(self, "overrides", MappingProxyType(self._overrides({} if overrides is None else overrides)))

    @classmethod
    def parse(cls, precision: Precision | str) -> Precision:
        """A Precision as it is, or the preset of that name.

        Presets: `"binary"` (weights and features are −1 and 1, and the quantizer replaces the
        activation), `"ternary"` (ternary weights, 2-bit features), `"all-ternary"` (the features are
        −1, 0, 1 and the quantizer replaces the activation), `"int2"` … `"int8"` (that width for
        both).

        Examples:
            >>> str(Precision.parse("int4").activation)
            'uint4'
        """
        if isinstance(precision, Precision):
            return precision
        presets = {"binary": ("bipolar", "bipolar"), "ternary": ("ternary", "uint2"), "all-ternary": ("ternary",) * 2}
        presets |= {f"int{bits}": (f"int{bits}", f"uint{bits}") for bits in range(2, 9)}
        if precision not in presets:
            raise ValueError(unknown("precision", precision, presets))
        return cls(*presets[precision])

    def of(self, path: str) -> Precision:
        """The precision of the layer at a module path: that of the last pattern that matches."""
        for pattern, precision in reversed(list(self.overrides.items())):
            if matches(path, pattern):
                return precision
        return self

    def activation_type(self, is_nonnegative: bool) -> IntegerType:
        """The type of an activation, by whether it can be negative."""
        if self.activation.signed or self.activation.levels or is_nonnegative:
            return self.activation
        return replace(self.activation, signed=True)

    @property
    def replaces_activation(self) -> bool:
        """Whether the quantizer takes the place of the activation function."""
        return self.activation.narrow or bool(self.activation.levels)

    def _overrides(self, overrides: Any) -> dict[str, Precision]:
        if not isinstance(overrides, Mapping):
            raise TypeError(
                f"overrides are a mapping from a pattern to a Precision or its name, got {brief(overrides)}"
            )
        for pattern in overrides:
            if not isinstance(pattern, str):
                raise TypeError(f"a pattern is of module paths, such as 'blocks.*.conv', got {brief(pattern)}")
        is_float = Precision(self.weight, self.activation, stays_float=True) if "float" in overrides.values() else None
        return {
            pattern: is_float if other == "float" and is_float else Precision.parse(other)
            for pattern, other in overrides.items()
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Mapping proxies cannot be copied, plain dictionaries can."""
        return _rebuild, (
            self.weight,
            self.activation,
            self.input,
            self.output,
            self.rounding,
            self.first,
            self.last,
            dict(self.overrides),
            self.stays_float,
        )


def _rebuild(
    weight: IntegerType,
    activation: IntegerType,
    input_type: IntegerType | ImageInput | str,
    output: str,
    rounding: Rounding,
    first: IntegerType | None,
    last: IntegerType | None,
    overrides: dict[str, Precision | str],
    stays_float: bool,
) -> Precision:
    return Precision(
        weight,
        activation,
        input_type,
        output,
        rounding=rounding,
        first=first,
        last=last,
        overrides=overrides,
        stays_float=stays_float,
    )


def _rounding(name: Rounding | str) -> Rounding:
    try:
        return Rounding(name)
    except ValueError:
        raise ValueError(unknown("rounding", name, [each.value for each in Rounding])) from None


def _type(name: IntegerType | str) -> IntegerType:
    return name if isinstance(name, IntegerType) else IntegerType.parse(name)


def _input(name: IntegerType | str) -> IntegerType:
    input_type = _type(name)
    if input_type.levels:
        raise ValueError(
            f"a model input is quantised to all levels of a range, got {input_type}; use 'int2' to 'uint8'"
        )
    return input_type


def _weight_type(name: IntegerType | str) -> IntegerType:
    weight_type = _type(name)
    if weight_type.num_channels is not None:
        raise ValueError(
            f"weights have a scale for each channel and one codebook, got {weight_type}; give one row of thresholds"
        )
    if not weight_type.signed and not weight_type.levels:
        raise ValueError(f"weights are signed, got {weight_type}")
    return replace(weight_type, narrow=True) if weight_type.bits == 8 and not weight_type.levels else weight_type
