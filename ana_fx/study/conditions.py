"""The hypotheses (11) to (18) of Theorem 2, by the paper's numbers, for one model under one schedule.

The theorem (Spallanzani et al. 2022, section 2.3) is about the Heaviside H; a quantizer is a sum of them, so each
threshold is looked at as H at 0. It fixes the parameters; here the noise of the weights is an input's noise.

**(13) in a weaker form.** The theorem wants σ_λ strictly increasing. Uniform and triangular noise have compact support,
so σ_λ is constant outside it, and (13) fails as it is written. This is enough instead:

    (13')  σ_λ is continuous, never falls, and rises strictly where 0 < σ_λ < 1.

Proof. The proof of the theorem uses (13) in two places. It turns σ_λ(s) < y into s < σ_λ⁻¹(y), and 1 − σ_λ(s) < y
into s > σ_λ⁻¹(1 − y), for levels y = ε·r_ℓ(λ), which lie in (0, 1) once λ is small. Under (13') exactly one s has
σ_λ(s) = y, since σ_λ takes every value in (0, 1) and rises strictly there; call it σ_λ⁻¹(y). Then s < σ_λ⁻¹(y) implies
σ_λ(s) < y: either 0 < σ_λ(s), and it is less by strict growth, or σ_λ(s) = 0 < y. And s >= σ_λ⁻¹(y) implies
σ_λ(s) >= y because σ_λ never falls. So the two are equivalent as before. The other use, σ_λ(s) < σ_λ(t) from s < t,
becomes <=, between an upper bound and a number that is shown to be below ε·r_ℓ, which is all that is needed.
Everything else stands.

**A range that ended.** The theorem has λ_ℓ > 0 until the limit, ours is 0 from the end of the range on, and σ_λ is H
itself. If the inputs are exact, nothing is left to show; if not, no r_ℓ satisfies (18), whose denominator is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import networkx as nx
from torch.fx import Node

from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.study.rates import Rates, is_off_thresholds, late_inputs, lightness

__all__ = ["Condition", "Verdict", "conditions_of"]

_NUM_NAMED = 2  # layer maps that a line names before the others are only counted


class Verdict(str, Enum):
    """What is found of a hypothesis."""

    HOLDS = "holds"
    WEAKER = "weaker"
    FAILS = "fails"


@dataclass(frozen=True)
class Condition:
    """One hypothesis of the theorem.

    Args:
        number: Its number in the paper, 11 to 18.
        statement: What it says.
        verdict: Whether it holds, holds by a weaker condition that suffices, or fails.
        reason: Why, or which weaker condition holds; empty where the statement says it all.
        failures: The layer maps or edges where it fails, each with its reason.
    """

    number: int
    statement: str
    verdict: Verdict
    reason: str = ""
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it holds, if only by the weaker condition."""
        return self.verdict is not Verdict.FAILS

    def __str__(self) -> str:
        return f"({self.number}) {self.verdict.value:6} {self.statement}" + (f": {self.reason}" if self.reason else "")


def conditions_of(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]
) -> tuple[Condition, ...]:
    """The eight hypotheses, in the paper's order."""
    lasting = [(each.path, _lasting(each)) for each in rates.values() if not is_off_thresholds(each)]
    light = [(each.path, reason) for each in rates.values() if (reason := lightness(each)) is not None]
    late = [
        (str(each), f"ends at {each.end:g}, its reader at {each.reader_end:g}" if each.end < math.inf else "never ends")
        for each in late_inputs(graph, ranges, rates)
    ]
    last = max((each.end for each in ranges.values()), default=0.0)
    return (
        Condition(11, "λ_ℓ -> 0", Verdict.HOLDS, f"the last annealing range ends at {last:g} of training"),
        _pointwise(lasting, light, len(rates)),
        _strictly_increasing(rates.values()),
        Condition(14, "0 <= σ_λ(s) <= 1", Verdict.HOLDS, "σ_λ is a distribution function"),
        _condition(15, "σ_λ⁻¹(ε·r_ℓ) -> 0", lasting, len(rates)),
        _condition(16, "σ_λ⁻¹(1 − ε·r_ℓ) -> 0", lasting, len(rates)),
        _condition(17, "(1 − σ_λ(0)) / r_ℓ -> 0", light, len(rates)),
        _condition(18, "r_u / σ_v⁻¹(1 − ε·r_v) -> 0 for every edge u -> v", late, graph.number_of_edges(), "edges"),
    )


def _lasting(rates: Rates) -> str:
    if not rates.std_power:
        return f"β stays at {rates.std:.4g}"
    return f"α stays at {rates.mean:g}"


def _pointwise(lasting: list[tuple[str, str]], light: list[tuple[str, str]], total: int) -> Condition:
    """(12): off thresholds α and β must vanish, at a threshold the mean must outweigh the width too."""
    statement = "σ_λ(s) -> H(s) for every s"
    if lasting or not light:
        return _condition(12, statement, lasting, total)
    found = _condition(12, statement, light, total)
    return Condition(12, statement, Verdict.FAILS, f"for s = 0 alone, {found.reason}", found.failures)


def _strictly_increasing(rates: Iterable[Rates]) -> Condition:
    families = sorted({each.noise.name for each in rates if each.noise.is_compact})
    statement = "σ_λ is strictly increasing"
    if not families:
        return Condition(13, statement, Verdict.HOLDS)
    reason = f"under {' and '.join(families)} noise only where 0 < σ_λ < 1, which suffices (ana_fx.study.conditions)"
    return Condition(13, statement, Verdict.WEAKER, reason)


def _condition(
    number: int, statement: str, failures: list[tuple[str, str]], total: int, what: str = "layer maps"
) -> Condition:
    if not failures:
        return Condition(number, statement, Verdict.HOLDS)
    (_, first), places = failures[0], [place for place, _ in failures]
    is_common = {reason for _, reason in failures} == {first}
    if is_common and len(failures) == total > 1:
        reason = f"{first} (all {total} {what})"
    else:
        more = len(places) - _NUM_NAMED
        named = ", ".join(places[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
        reason = f"{first} ({named})"
    return Condition(number, statement, Verdict.FAILS, reason, tuple(f"{place}: {why}" for place, why in failures))
