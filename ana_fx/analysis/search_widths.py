"""`search_widths`: the widths with the least error that fit a budget, by an integer program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ana_fx.analysis.latency_table import LatencyTable, Product
from ana_fx.analysis.sensitivities import INPUT_BITS, Sensitivities, bits_of
from ana_fx.analysis.width_program import WidthProgram
from ana_fx.errors import PrecisionError
from ana_fx.precision.precision import Precision

__all__ = ["Cost", "cost_of", "search_widths"]


def search_widths(
    found: Sensitivities,
    *,
    weight_bytes: float | None = None,
    mac_bits: float | None = None,
    latency: float | None = None,
    latency_table: LatencyTable | None = None,
    activation: str | None = None,
) -> Precision:
    """The widths of weights and activations with the least error of the outputs that fit a budget.

    Errors of single tensors are added up, as independent noise adds up; the sum is minimised by an integer program
    (scipy's `milp`, which is HiGHS). Widths are those that were measured, and so within what the target holds; joined
    tensors, and layers that share a weight, have one.

    Args:
        found: What `ana_fx.sensitivity` measured.
        weight_bytes: The bytes that all weights may take together.
        mac_bits: What bits of the weight times bits of what it meets may add up to, over all multiplications for one
            sample.
        latency: What all layers may take together, by the latency table and in its unit.
        latency_table: What each layer takes on a device, at each pair of widths that may be chosen.
        activation: The width of all activations, such as `"uint8"`; None to choose theirs too. Only `mac_bits` and
            `latency` can make narrow activations worth their error.

    Returns:
        A precision with an override for each layer, to look at, to edit and to give to `prepare`.

    Raises:
        PrecisionError: No widths that were measured fit the budget.
        ValueError: No budget is given, a width was not measured, or the latency table lacks entries.
        ImportError: scipy is not installed.

    Examples:
        >>> import ana_fx, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> found = ana_fx.sensitivity(model, [torch.rand(64, 8)], widths=("int2", "int4", "int8"))
        >>> precision = search_widths(found, weight_bytes=200)
        >>> cost_of(found, precision).weight_bytes <= 200
        True
    """
    given = {"weight_bytes": weight_bytes, "mac_bits": mac_bits, "latency": latency}
    budgets = {name: budget for name, budget in given.items() if budget is not None}
    if not budgets:
        raise ValueError(f"search_widths() needs a budget: {', '.join(given)}, or several")
    if (latency is None) != (latency_table is None):
        raise ValueError(
            "search_widths() needs latency and latency_table together: a budget, and what it is counted by"
        )
    if activation is not None:
        found = found.with_activation(activation)
    if latency_table is not None:
        latency_table.check(found.products())
    program = WidthProgram.of(found, latency_table)
    for name, budget in budgets.items():
        least = program.least(name)
        if least > budget:
            raise PrecisionError(
                f"no widths fit {name}={budget:g}: with the fewest bits that were measured it is {least:g}; raise the "
                f"budget, measure narrower widths, or choose a target that holds them"
            )
    return _precision(found, program.solve(budgets))


@dataclass(frozen=True)
class Cost:
    """What a precision costs.

    Args:
        weight_bytes: Bytes of all weights.
        mac_bits: Bits of the weight times bits of what it meets, over all multiplications for one sample.
        error: The sum of the errors that were measured.
        latency: What all layers with weights take on a device; None if no table tells.
    """

    weight_bytes: float
    mac_bits: float
    error: float
    latency: float | None = None


def cost_of(found: Sensitivities, precision: Precision | str, latency_table: LatencyTable | None = None) -> Cost:
    """What a precision costs, by the widths that were measured.

    Raises:
        ValueError: It has a width that was not measured, or that the latency table lacks.
    """
    precision = Precision.parse(precision)
    activations = [
        _measured(each.errors, precision.of(each.layers[0]).activation, each.layers) for each in found.activations
    ]
    weight_bytes = mac_bits = 0.0
    products: list[Product] = []
    error = sum(each.errors[width] for each, width in zip(found.activations, activations, strict=True))
    for each in found.weights:
        width = _measured(each.errors, precision.of(each.layers[0]).weight, each.layers)
        error += each.errors[width]
        weight_bytes += each.num_weights * bits_of(width) / 8
        for index, source in enumerate(each.inputs):
            read = INPUT_BITS if source is None else bits_of(activations[source])
            mac_bits += each.num_products[index] * bits_of(width) * read
            products.append((*each.called(index), bits_of(width), read))
    if latency_table is None:
        return Cost(weight_bytes, mac_bits, error)
    latency_table.check(products)
    return Cost(weight_bytes, mac_bits, error, sum(latency_table.cost(*each) or 0.0 for each in products))


def _measured(errors: Mapping[str, float], wanted: Any, layers: tuple[str, ...]) -> str:
    """The name of a type among the widths that were measured."""
    is_ternary = wanted.narrow and wanted.bits == 2
    name = "ternary" if is_ternary else f"int{wanted.bits}"
    for width in errors:
        if width.removeprefix("u") == name:
            return width
    if len(errors) == 1:  # its type does not depend on the precision
        return next(iter(errors))
    raise ValueError(f"{', '.join(layers)}: {wanted} was not measured, only {', '.join(errors)}")


def _precision(found: Sensitivities, chosen: tuple[list[str], list[str]]) -> Precision:
    weights, activations = chosen
    outputs = {path: width for each, width in zip(found.activations, activations, strict=True) for path in each.layers}
    own = {path: width for each, width in zip(found.weights, weights, strict=True) for path in each.layers}
    overrides = {
        path: Precision(own.get(path, "int8"), outputs.get(path, "uint8")) for path in dict.fromkeys([*own, *outputs])
    }
    return Precision("int8", "uint8", overrides=overrides)
