"""How much the outputs of a network suffer when one tensor of it has few bits."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ana_fx.analysis.latency_table import Product
from ana_fx.text.plain_text import cell
from ana_fx.text.printed import printed

if TYPE_CHECKING:  # it takes long to import
    from rich.table import Table

__all__ = ["INPUT_BITS", "ActivationSensitivity", "Sensitivities", "WeightSensitivity", "bits_of"]

INPUT_BITS = 8  # of the model's inputs
_WIDTH = 140


def bits_of(width: str) -> int:
    """The bits of a width by its name: "ternary" is stored in two.

    >>> bits_of("ternary"), bits_of("uint6")
    (2, 6)
    """
    return 2 if width == "ternary" else int(width.removeprefix("u").removeprefix("int"))


@dataclass(frozen=True)
class WeightSensitivity:
    """What the widths of one weight cost.

    Args:
        layers: The module paths of the layer maps that read it; more than one if they share it.
        errors: For each width, the error of the network's outputs if this weight alone has it: the power of the error
            over that of the outputs.
        num_weights: How many numbers it has.
        num_products: Multiplications for one sample, of each of `layers`.
        inputs: Of each of `layers`, the place in `Sensitivities.activations` of what it reads; None for a model input,
            which has eight bits here.
        shapes: What each of `layers` is called in a latency table that holds for all layers of its shape.
    """

    layers: tuple[str, ...]
    errors: dict[str, float]
    num_weights: int
    num_products: tuple[int, ...]
    inputs: tuple[int | None, ...]
    shapes: tuple[str, ...] = ()

    def called(self, index: int) -> tuple[str, str]:
        """Path and shape of one of `layers`."""
        return self.layers[index], (self.shapes or self.layers)[index]


@dataclass(frozen=True)
class ActivationSensitivity:
    """What the widths of one layer map's output cost, or of several outputs that are joined and so have one type.

    Args:
        layers: Their module paths.
        errors: As for weights; those of joined outputs are added up.
    """

    layers: tuple[str, ...]
    errors: dict[str, float]


@dataclass(frozen=True)
class Sensitivities:
    """What `sensitivity` measured; prints as a table.

    Args:
        weights: In graph order.
        activations: Likewise.
    """

    weights: tuple[WeightSensitivity, ...]
    activations: tuple[ActivationSensitivity, ...]

    def __str__(self) -> str:
        from rich.console import Console

        return printed(self, Console(width=_WIDTH, no_color=True, file=io.StringIO()))

    def __rich__(self) -> Table:
        """The errors, for rich consoles."""
        from rich.table import Table

        table = Table(title="error of the outputs if one tensor alone has few bits", title_justify="left")
        every: list[WeightSensitivity | ActivationSensitivity] = [*self.weights, *self.activations]
        widths = sorted(
            {width for each in every for width in each.errors}, key=lambda each: (each[0] == "u", bits_of(each))
        )
        table.add_column("tensor", no_wrap=True)
        for width in widths:
            table.add_column(width, justify="right")
        for each in every:
            kind = "weight" if isinstance(each, WeightSensitivity) else "output"
            numbers = (f"{each.errors[width]:.2e}" if width in each.errors else "–" for width in widths)
            table.add_row(*(cell(text) for text in (f"{', '.join(each.layers)}: {kind}", *numbers)))
        return table

    def products(self) -> tuple[Product, ...]:
        """Each layer with a weight at each pair of widths, which are the entries that a latency table needs."""
        found: list[Product] = []
        for each in self.weights:
            for index, source in enumerate(each.inputs):
                read = [INPUT_BITS] if source is None else map(bits_of, self.activations[source].errors)
                found += [(*each.called(index), *pair) for pair in itertools.product(map(bits_of, each.errors), read)]
        return tuple(dict.fromkeys(found))

    def with_activation(self, width: str) -> Sensitivities:
        """Return the same with all activations at one width, except those whose type does not depend on the precision.

        Raises:
            ValueError: It was not measured.
        """
        fixed = []
        for each in self.activations:
            errors = each.errors
            if len(errors) > 1:
                if width not in errors:
                    raise ValueError(f"activation={width!r} was not measured, only {', '.join(errors)}")
                errors = {width: errors[width]}
            fixed.append(replace(each, errors=errors))
        return replace(self, activations=tuple(fixed))

    def to_json(self) -> str:
        """All that was measured."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)
