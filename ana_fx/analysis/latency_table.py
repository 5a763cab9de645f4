"""What the layers of a network take on a device, by their widths, as its owner measured it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ana_fx.errors import listing

__all__ = ["LatencyTable", "Product"]

Product = tuple[str, str, int, int]  # path of a layer, its shape, bits of its weight, bits of what it reads
_COLUMNS = ("layer", "weight_bits", "activation_bits", "cost")
_MOST_BITS = 8


@dataclass(frozen=True)
class LatencyTable:
    """What each layer with a weight takes on a device, in one unit of your choice: cycles, microseconds, microjoules.

    Args:
        costs: (layer, bits of its weight, bits of what it reads) → what it takes. A layer is a module path or, for all
            layers of one shape, what `WeightSensitivity.shapes` calls it, such as
            `"convolution 16x32x32->32x16x16 weight 32x16x3x3 stride 2x2"`. A path goes before a shape. Ternary weights
            have two bits, a model input has eight.
        interpolates: Whether widths that were not measured get what lies on the line between their neighbours, first
            along the bits of the weight, then along those of what it reads. Beyond the outermost nothing is made up.

    Raises:
        ValueError: Bits are not 1 to 8, or a cost is negative or not finite.

    Examples:
        >>> table = LatencyTable({("head", 2, 8): 10.0, ("head", 4, 8): 16.0}, interpolates=True)
        >>> table.cost("head", "linear 64->10 weight 10x64", 3, 8)
        13.0
    """

    costs: Mapping[tuple[str, int, int], float]
    interpolates: bool = False

    def __post_init__(self) -> None:
        for (layer, *bits), cost in self.costs.items():
            where = f"latency of {layer!r}, {bits[0]} bits times {bits[1]}"
            if not all(1 <= each <= _MOST_BITS for each in bits):
                raise ValueError(f"{where}: weights and inputs have 1 to {_MOST_BITS} bits")
            if not 0 <= cost < math.inf:
                raise ValueError(f"{where}: needed a finite cost, 0 or more, got {cost}")

    @classmethod
    def of_text(cls, text: str, *, interpolates: bool = False) -> LatencyTable:
        """Read a table: CSV with a line of names, or a JSON list of objects with these names as keys.

        Args:
            text: What stands in the file; the names are layer, weight_bits, activation_bits and cost.
            interpolates: As for a table that is made from its costs.

        Raises:
            ValueError: It is something else, or holds an entry twice.

        Examples:
            >>> LatencyTable.of_text("layer,weight_bits,activation_bits,cost\\nhead,4,8,16.5").costs
            {('head', 4, 8): 16.5}
        """
        costs: dict[tuple[str, int, int], float] = {}
        for index, row in enumerate(_rows(text), start=1):
            key, cost = _entry(row, index)
            if key in costs:
                raise ValueError(f"latency table, entry {index}: {key} stands there twice")
            costs[key] = cost
        return cls(costs, interpolates)

    def cost(self, layer: str, shape: str, weight_bits: int, activation_bits: int) -> float | None:
        """What a layer takes at these widths, or None if the table does not tell.

        Args:
            layer: Its module path.
            shape: What its shape is called.
            weight_bits: Bits of its weight.
            activation_bits: Bits of what it reads.
        """
        for name in (layer, shape):
            if (name, weight_bits, activation_bits) in self.costs:
                return self.costs[name, weight_bits, activation_bits]
        if not self.interpolates:
            return None
        rows: dict[int, dict[int, float]] = {}
        for name in (shape, layer):  # what is said of the path replaces what is said of the shape
            for (known, weight, activation), cost in self.costs.items():
                if known == name:
                    rows.setdefault(activation, {})[weight] = cost
        column = {activation: _on_line(row, weight_bits) for activation, row in rows.items()}
        return _on_line({activation: cost for activation, cost in column.items() if cost is not None}, activation_bits)

    def check(self, products: Iterable[Product]) -> None:
        """Raise an error unless it tells what each of these takes.

        Raises:
            ValueError: Entries are missing.
        """
        missing: dict[tuple[str, str], list[str]] = {}
        for layer, shape, weight_bits, activation_bits in dict.fromkeys(products):
            if self.cost(layer, shape, weight_bits, activation_bits) is None:
                missing.setdefault((layer, shape), []).append(f"{weight_bits}×{activation_bits}")
        if missing:
            raise ValueError(
                listing(
                    "the latency table lacks entries (bits of the weight × bits of what it reads):",
                    [f"{layer} ({shape}): {', '.join(pairs)}" for (layer, shape), pairs in missing.items()],
                    "measure them, for the path or for the shape; or measure the sensitivity at fewer widths, or fix "
                    "the activation; or let the table interpolate what lies between others",
                )
            )


def _on_line(points: Mapping[int, float], at: int) -> float | None:
    """Return the value at a point, or that on the line between its neighbours; None beyond the outermost."""
    if at in points:
        return points[at]
    below, above = [x for x in points if x < at], [x for x in points if x > at]
    if not below or not above:
        return None
    left, right = max(below), min(above)
    return points[left] + (points[right] - points[left]) * (at - left) / (right - left)


def _rows(text: str) -> Iterable[Any]:
    if not text.lstrip().startswith("["):
        reader = csv.DictReader(io.StringIO(text.strip()))
        names = reader.fieldnames or ("none",)
        if not set(_COLUMNS) <= set(names):
            raise ValueError(f"a latency table has the columns {', '.join(_COLUMNS)}, got {', '.join(names)}")
        return reader
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the latency table is no JSON: {error}") from error
    return list(found)


def _entry(row: Any, index: int) -> tuple[tuple[str, int, int], float]:
    """Check the types of an entry and return it."""
    try:
        layer, weight_bits, activation_bits, cost = (row[name] for name in _COLUMNS)
        return (str(layer), _whole(weight_bits), _whole(activation_bits)), float(cost)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"latency table, entry {index}: {row!s:.80} is none; needed {', '.join(_COLUMNS)}, of which all but the "
            f"layer are numbers"
        ) from error


def _whole(number: Any) -> int:
    if int(number) != float(number):
        raise ValueError(f"{number} is no whole number")
    return int(number)
