"""`search_widths`: the widths with the least error that fit a budget, by an integer program."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ana_fx.analysis.sensitivities import Sensitivities, WeightSensitivity, bits_of
from ana_fx.errors import PrecisionError
from ana_fx.precision.precision import Precision

__all__ = ["Cost", "cost_of", "search_widths"]

_INPUT_BITS = 8
_GAP = 1e-6  # relative, of what may be left to the optimum


def search_widths(
    found: Sensitivities,
    *,
    weight_bytes: float | None = None,
    mac_bits: float | None = None,
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
        activation: The width of all activations, such as `"uint8"`; None to choose theirs too. Only `mac_bits` makes
            narrow activations worth their error.

    Returns:
        A precision with an override for each layer, to look at, to edit and to give to `prepare`.

    Raises:
        PrecisionError: No widths that were measured fit the budget.
        ValueError: No budget is given, or a width was not measured.
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
    if weight_bytes is None and mac_bits is None:
        raise ValueError("search_widths() needs a budget: weight_bytes, mac_bits or both")
    program = _Program.of(found, activation)
    budgets = {
        name: budget for name, budget in (("weight_bytes", weight_bytes), ("mac_bits", mac_bits)) if budget is not None
    }
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
    """

    weight_bytes: float
    mac_bits: float
    error: float


def cost_of(found: Sensitivities, precision: Precision | str) -> Cost:
    """What a precision costs, by the widths that were measured.

    Raises:
        ValueError: It has a width that was not measured.
    """
    precision = Precision.parse(precision)
    activations = [
        _measured(each.errors, precision.of(each.layers[0]).activation, each.layers) for each in found.activations
    ]
    weight_bytes = mac_bits = 0.0
    error = sum(each.errors[width] for each, width in zip(found.activations, activations, strict=True))
    for each in found.weights:
        width = _measured(each.errors, precision.of(each.layers[0]).weight, each.layers)
        error += each.errors[width]
        weight_bytes += each.num_weights * bits_of(width) / 8
        for num_products, source in zip(each.num_products, each.inputs, strict=True):
            read = _INPUT_BITS if source is None else bits_of(activations[source])
            mac_bits += num_products * bits_of(width) * read
    return Cost(weight_bytes, mac_bits, error)


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


@dataclass
class _Program:
    """An integer program of 0 and 1: one variable for each width of each tensor, and each pair that multiplies.

    Args:
        errors: What each variable adds to the error.
        costs: What each adds to each cost.
        weights: For each weight, the variables of its widths.
        activations: Likewise.
        sums: Equations: the variables that add up to 1, or to another variable.
    """

    errors: list[float] = field(default_factory=list)
    costs: dict[str, dict[int, float]] = field(default_factory=lambda: {"weight_bytes": {}, "mac_bits": {}})
    weights: list[dict[str, int]] = field(default_factory=list)
    activations: list[dict[str, int]] = field(default_factory=list)
    sums: list[tuple[list[int], int | None]] = field(default_factory=list)
    choices: list[dict[str, int]] = field(default_factory=list)

    @classmethod
    def of(cls, found: Sensitivities, activation: str | None) -> _Program:
        """The program of what was measured."""
        program = cls()
        for each in found.activations:
            errors = each.errors
            if activation is not None and len(errors) > 1:
                if activation not in errors:
                    raise ValueError(f"activation={activation!r} was not measured, only {', '.join(errors)}")
                errors = {activation: errors[activation]}
            program.activations.append(program._choice(errors))
        for weight in found.weights:
            choice = program._choice(weight.errors)
            program.weights.append(choice)
            program._add_costs(weight, choice)
        return program

    def _choice(self, errors: Mapping[str, float]) -> dict[str, int]:
        """Variables of which one is 1."""
        choice = {width: len(self.errors) + index for index, width in enumerate(errors)}
        self.errors += errors.values()
        self.sums.append((list(choice.values()), None))
        return choice

    def _add_costs(self, weight: WeightSensitivity, choice: dict[str, int]) -> None:
        for width, variable in choice.items():
            self.costs["weight_bytes"][variable] = weight.num_weights * bits_of(width) / 8
        macs = self.costs["mac_bits"]
        for num_products, source in zip(weight.num_products, weight.inputs, strict=True):
            if source is None:
                for width, variable in choice.items():
                    macs[variable] = macs.get(variable, 0.0) + num_products * bits_of(width) * _INPUT_BITS
                continue
            read = self.activations[source]
            pairs = {pair: len(self.errors) + index for index, pair in enumerate(itertools.product(choice, read))}
            self.errors += [0.0] * len(pairs)
            for (ours, theirs), variable in pairs.items():
                macs[variable] = num_products * bits_of(ours) * bits_of(theirs)
            self.sums += [([pairs[ours, each] for each in read], choice[ours]) for ours in choice]
            self.sums += [([pairs[each, theirs] for each in choice], read[theirs]) for theirs in read]

    def least(self, name: str) -> float:
        """The least that a cost can be."""
        column = self._column(name)
        return float((self._solved({}, column) * column).sum())

    def solve(self, budgets: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """The widths of the weights and of the activations.

        Raises:
            PrecisionError: No widths fit all budgets at once.
        """
        values = self._solved(budgets, np.array(self.errors))
        weights, activations = (
            [max(choice, key=lambda width: values[choice[width]]) for choice in choices]  # used at once
            for choices in (self.weights, self.activations)
        )
        return weights, activations

    def _column(self, name: str) -> Any:
        column = np.zeros(len(self.errors))
        for variable, cost in self.costs[name].items():
            column[variable] = cost
        return column

    def _solved(self, budgets: Mapping[str, float], objective: Any) -> Any:
        """The variables, of which each is 0 or 1."""
        milp, linear_constraint = _scipy()
        equations = np.zeros((len(self.sums), len(self.errors)))
        for row, (variables, total) in enumerate(self.sums):
            equations[row, variables] = 1
            if total is not None:
                equations[row, total] = -1
        right = [0.0 if total is not None else 1.0 for _, total in self.sums]
        constraints = [linear_constraint(equations, right, right)]
        for name, budget in budgets.items():
            constraints.append(linear_constraint(self._column(name) / budget, -np.inf, 1.0))
        scale = max(float(np.abs(objective).max()), 1e-300)
        result = milp(
            objective / scale,
            integrality=np.ones(len(self.errors)),
            bounds=(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": _GAP},
        )
        if result.x is None:
            said = " and ".join(f"{name}={budget:g}" for name, budget in budgets.items())
            raise PrecisionError(f"no widths fit {said}; raise a budget, or measure narrower widths")
        return np.round(result.x)


def _scipy() -> tuple[Any, Any]:
    """The solver, and its constraints."""
    try:
        from scipy.optimize import LinearConstraint, milp
    except ImportError as error:
        raise ImportError("search_widths() needs scipy; pip install ana_fx[search]") from error
    return milp, LinearConstraint
