"""The integer program behind `search_widths`: one width for each tensor, the least error, costs within budgets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ana_fx.analysis.latency_table import LatencyTable
from ana_fx.analysis.sensitivities import INPUT_BITS, Sensitivities, WeightSensitivity, bits_of
from ana_fx.errors import PrecisionError

__all__ = ["WidthProgram"]

_GAP = 1e-6  # relative, of what may be left to the optimum
_TINY = 1e-300
_NO_TABLE = LatencyTable({})


@dataclass
class WidthProgram:
    """An integer program of 0 and 1: one variable for each width of each tensor, and each pair that multiplies.

    Args:
        table: The cost of products on a device; empty if no latency is asked for.
        errors: How much each variable adds to the error.
        costs: For each cost by name, how much each variable adds to it.
        weights: For each weight, its variables by width.
        activations: For each activation, its variables by width.
        sums: Equations: variables that add up to 1 (None), or to another variable.
    """

    table: LatencyTable
    errors: list[float] = field(default_factory=list)
    costs: dict[str, dict[int, float]] = field(
        default_factory=lambda: {"weight_bytes": {}, "mac_bits": {}, "latency": {}}
    )
    weights: list[dict[str, int]] = field(default_factory=list)
    activations: list[dict[str, int]] = field(default_factory=list)
    sums: list[tuple[list[int], int | None]] = field(default_factory=list)

    @classmethod
    def of(cls, found: Sensitivities, table: LatencyTable | None = None) -> WidthProgram:
        """Make the program of what was measured."""
        program = cls(table or _NO_TABLE)
        program.activations += [program._choice(each.errors) for each in found.activations]
        for weight in found.weights:
            program.weights.append(program._choice(weight.errors))
            program._add_costs(weight, program.weights[-1])
        return program

    def _choice(self, errors: Mapping[str, float]) -> dict[str, int]:
        """Add a variable for each width of a tensor, exactly one of which is 1; return them by width."""
        choice = {width: len(self.errors) + index for index, width in enumerate(errors)}
        self.errors += errors.values()
        self.sums.append((list(choice.values()), None))
        return choice

    def _add_costs(self, weight: WeightSensitivity, choice: dict[str, int]) -> None:
        for width, variable in choice.items():
            self._add("weight_bytes", variable, weight.num_weights * bits_of(width) / 8)
        for index, source in enumerate(weight.inputs):
            if source is None:
                for width, variable in choice.items():
                    self._add_product(weight, index, variable, (bits_of(width), INPUT_BITS))
                continue
            read = self.activations[source]
            pairs = {pair: len(self.errors) + place for place, pair in enumerate(itertools.product(choice, read))}
            self.errors += [0.0] * len(pairs)
            for (ours, theirs), variable in pairs.items():
                self._add_product(weight, index, variable, (bits_of(ours), bits_of(theirs)))
            self.sums += [([pairs[ours, each] for each in read], choice[ours]) for ours in choice]
            self.sums += [([pairs[each, theirs] for each in choice], read[theirs]) for theirs in read]

    def _add_product(self, weight: WeightSensitivity, index: int, variable: int, bits: tuple[int, int]) -> None:
        """Add what one of the layers that read a weight costs at a pair of widths, to a variable."""
        self._add("mac_bits", variable, weight.num_products[index] * bits[0] * bits[1])
        self._add("latency", variable, self.table.cost(*weight.called(index), *bits) or 0.0)

    def _add(self, name: str, variable: int, cost: float) -> None:
        self.costs[name][variable] = self.costs[name].get(variable, 0.0) + cost

    def least(self, name: str) -> float:
        """Return the smallest value that a cost can have."""
        column = self._column(name)
        return float((self._solved({}, column) * column).sum())

    def solve(self, budgets: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """Return the widths of the weights and of the activations with the least error within the budgets.

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
        """Return the variables, each 0 or 1, that minimise an objective within the budgets."""
        milp, linear_constraint = _scipy()
        equations = np.zeros((len(self.sums), len(self.errors)))
        for row, (variables, total) in enumerate(self.sums):
            equations[row, variables] = 1
            if total is not None:
                equations[row, total] = -1
        right = [0.0 if total is not None else 1.0 for _, total in self.sums]
        constraints = [linear_constraint(equations, right, right)]
        for name, budget in budgets.items():
            constraints.append(linear_constraint(self._column(name) / max(budget, _TINY), -np.inf, 1.0))
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
    """Import scipy's solver, and the class of its constraints."""
    try:
        from scipy.optimize import LinearConstraint, milp
    except ImportError as error:
        raise ImportError("search_widths() needs scipy; pip install ana_fx[search]") from error
    return milp, LinearConstraint
