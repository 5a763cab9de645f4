"""Compositional convergence: when the noisy network tends to the quantised one, and why the order matters.

Layer map ℓ computes x_ℓ = σ(S(x_{ℓ−1})), S affine; with noise x_{λ,ℓ} = σ_λ(S(x_{λ,ℓ−1})), where
σ_λ(s) = E[σ(s − ν)] = q_0 + Σ_k (q_k − q_{k−1})·F(s − θ_k), F the distribution function of ν with mean α(λ) and
standard deviation β(λ), and λ falls from 1 to 0 over the layer map's annealing range. Theorem 2 of Spallanzani et
al. 2022 (section 2.3) says when x_{λ,ℓ} -> x_ℓ for every input. `check_hypotheses` reports its hypotheses (11) to (18)
by number (`ana_fx.study.conditions`), with rates r_ℓ that satisfy them (`ana_fx.study.rates`). Beside them stand four
conditions of our own, sufficient for the power laws and the four families of this library:

    mean vanishes       α -> 0
    width vanishes      β -> 0
    mean outweighs      F(0) -> 1: at a threshold σ is the upper level, so the noise must end below it. Compact
                        families: −α >= r·β from some λ on, [−r·β, r·β] being the support; unbounded ones: −α / β -> ∞
    input first         for every edge u -> v: end(u) <= end(v); weights shared with a deeper layer map are late inputs

Claim: under these, x_{λ,ℓ} -> x_ℓ for every input; for a compact family the error is 0 from some λ > 0 on, for an
unbounded one it falls faster than every power of λ. Proof, by induction over the graph; e is the error of the
inputs, weights included, L the Lipschitz constant of S, s the noiseless argument and s_λ the noisy one, so that
|s_λ − s| <= L·e; F_1 is the family with mean 0 and deviation 1.

1. s is no threshold: let δ > 0 be its distance to the nearest. As L·e and |α| fall below δ / 3, each F(s_λ − θ) is
   within F_1(−δ / 3β) of 0 or 1. This is 0 once r·β < δ / 3 for a compact family, below exp(−(δ / 3β)² / 2) for the
   normal and below exp(−πδ / (3√3·β)) for the logistic one: less than every power of β, a power of λ.
2. s = θ: F(s_λ − θ) >= F_1((−α − L·e) / β). For a compact family e = 0 from some λ on, and F_1(−α / β) = 1. For an
   unbounded one the λ of inputs that end together with it are proportional to its own near the end, those of all
   others are 0, so L·e <= −α / 2 from some λ on, and 1 − F_1(−α / 2β) falls as in 1, −α / β being a negative power
   of λ. The other thresholds are as in 1.
3. Where end(u) > end(v), σ_v is exact while its input still moves: an argument that comes to θ from below stays on
   the wrong side as long as e > 0, however small e is, and the error of v is a whole level. Under unbounded noise
   e > 0 until the very end, so v does not converge. Under compact noise e is 0 from some λ on, which depends on the
   input: each single input converges in the end, but never all together, and (18) has no r_ℓ.

**A static mean** fails (12) and (17): α = 0 leaves half of the probability on either side of a threshold, and
σ_λ(0) = ½ for every λ. This is so in the paper's own experiments, whose main figures have static means. The claim
still holds for all inputs that meet no threshold, since step 2 is not needed; after the end of its range, every layer
map whose inputs are exact is exact. Where arguments are sums of integers, thresholds are met: then it matters.

**Same end with a dynamic mean** satisfies the letter of the theorem. Its λ_ℓ are proportional near the common end, and
powers of λ leave room for an r_ℓ at every depth. Section 4.2 of the paper says that this interval breaks the
hypothesis. What it breaks is the sense of it, that layers nearer the input converge first: at every moment its inputs
are noisier than their readers. That is `in step`, which is not needed for the limit: no input is relatively wider
than its reader, so that errors fall from the input on.

The paper writes c_α > 0 and adds the noise to the input (section 2.4); here the noise is subtracted, as in
Proposition 1, so that the constant is negative. Both move the staircase to the left; with the other sign (17) fails.
The paper's `progressive` powers, "inversely proportional to the depth", are L − ℓ in the authors' programs and here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import networkx as nx
from torch import nn
from torch.fx import Node

from ana_fx.annealing.ordering import annealing_order, layer_map_graph
from ana_fx.prepared.recognize import prepared
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import DecayInterval
from ana_fx.schedule.noise import Noise
from ana_fx.schedule.schedule import Schedule
from ana_fx.study.conditions import Condition, Verdict, conditions_of
from ana_fx.study.convergence import Convergence, compositional_convergence
from ana_fx.study.rates import Rates, convergence_powers, late_inputs, lightness, rates_of
from ana_fx.text.json_text import JsonReport

__all__ = [
    "Condition",
    "Convergence",
    "Hypothesis",
    "HypothesisReport",
    "Rates",
    "Verdict",
    "check_hypotheses",
    "compositional_convergence",
]


@dataclass(frozen=True)
class Hypothesis:
    """One condition, what it means, and the layer maps or edges where it does not hold."""

    name: str
    statement: str
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it holds everywhere."""
        return not self.failures


@dataclass(frozen=True)
class HypothesisReport(JsonReport):
    """What holds of Theorem 2 for one model under one schedule.

    Args:
        noise: The family of the noise; where layers have their own, `rates` name them.
        hypotheses: Our own conditions, by name.
        rates: How the noise of each layer map decays, in graph order.
        conditions: The paper's (11) to (18).
        powers: For each layer map, in the same order, the p of a convergence rate r = λ^p; None where none exists.
        remarks: What else a reader of the verdicts should know.
    """

    noise: Noise
    hypotheses: tuple[Hypothesis, ...]
    rates: tuple[Rates, ...]
    conditions: tuple[Condition, ...] = ()
    powers: tuple[float | None, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def converges(self) -> bool:
        """Whether every layer map converges for every input; `in step` is not needed for it."""
        return all(each.holds for each in self.hypotheses if each.name != "in step")

    @property
    def converges_off_thresholds(self) -> bool:
        """Whether every layer map converges for the inputs that meet no threshold anywhere."""
        return self["mean vanishes"].holds and self["width vanishes"].holds

    def __getitem__(self, name: str) -> Hypothesis:
        """The condition of that name."""
        return next(each for each in self.hypotheses if each.name == name)

    def condition(self, number: int) -> Condition:
        """The hypothesis that has this number in the paper, 11 to 18.

        Raises:
            ValueError: There is none.
        """
        for each in self.conditions:
            if each.number == number:
                return each
        raise ValueError(f"the hypotheses of Theorem 2 are (11) to (18), got {number!r}")

    def __str__(self) -> str:
        families = " and ".join(dict.fromkeys(rates.noise.name for rates in self.rates)) or self.noise.name
        lines = [f"Theorem 2 under {families} noise: {self._outcome}"]
        lines += [f"  {each}" for each in self.conditions]
        lines += [f"  note: {remark}" for remark in self.remarks]
        for rates, power in zip(self.rates, self.powers, strict=True):
            lines.append(f"  {rates}, " + ("no r exists" if power is None else f"r = λ^{power:g}"))
        return "\n".join(lines)

    @property
    def _outcome(self) -> str:
        if self.converges:
            return "features converge for every input"
        if self.converges_off_thresholds:
            return "features converge for inputs that meet no threshold"
        return "features do not converge"


def check_hypotheses(qat: nn.Module, schedule: Schedule | None = None) -> HypothesisReport:
    """Check for a prepared model when its noisy network tends to the quantised one (paper, Theorem 2).

    Args:
        qat: What `prepare` returned.
        schedule: Another schedule than the model's own; None is its own.

    Raises:
        TypeError: `qat` is no module.
        ValueError: It was not prepared, or its schedule is a function, whose noise need not be a power of λ.

    Examples:
        >>> import ana_fx
        >>> from torch import nn
        >>> qat = ana_fx.prepare(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), schedule="best-dynamic")
        >>> report = check_hypotheses(qat, ana_fx.Schedule("normal", mean="dynamic"))
        >>> report.converges, check_hypotheses(qat).converges, check_hypotheses(qat).converges_off_thresholds
        (True, False, True)
    """
    qat = prepared(qat, "check_hypotheses()")
    schedule = schedule or qat.meta["schedule"]
    if schedule.function is not None:
        raise ValueError(
            "check_hypotheses() knows noise that decays as a power of λ, got a schedule that is a function; "
            "compositional_convergence() measures what it does"
        )
    graph = layer_map_graph(qat)
    ranges = annealing_order(graph, schedule)
    rates = rates_of(ranges, schedule)
    own = _own_conditions(graph, ranges, rates)
    powers = convergence_powers(graph, ranges, rates)
    report = HypothesisReport(
        schedule.noise, own, tuple(rates.values()), conditions_of(graph, ranges, rates), tuple(powers.values())
    )
    return replace(report, remarks=tuple(_remarks(report, schedule)))


def _own_conditions(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]
) -> tuple[Hypothesis, ...]:
    """The conditions at the top of this file."""
    return (
        Hypothesis("mean vanishes", "α -> 0 as λ -> 0", tuple(_lasting_means(rates))),
        Hypothesis("width vanishes", "β -> 0 as λ -> 0", tuple(_lasting_widths(rates))),
        Hypothesis("mean outweighs", _outweighing(rates.values()), tuple(_light_means(rates))),
        Hypothesis("input first", "end(u) <= end(v) for every edge u -> v", tuple(_late(graph, ranges, rates))),
        Hypothesis(
            "in step", "no input is relatively wider than its reader", tuple(_wide_inputs(graph, ranges, rates))
        ),
    )


def _remarks(report: HypothesisReport, schedule: Schedule) -> list[str]:
    remarks = []
    if any(rates.mean == 0.0 for rates in report.rates):
        remarks.append(
            "a static mean leaves σ_λ(0) at ½, so (12) and (17) fail at thresholds, in the paper's own experiments too"
        )
    if schedule.interval is DecayInterval.SAME_END and report.converges and not report["in step"].holds:
        remarks.append(
            "same end satisfies the letter of the theorem, but its inputs are noisier than their readers until all "
            "end together; the paper counts this as a broken hypothesis (section 4.2)"
        )
    is_compact = all(rates.noise.is_compact for rates in report.rates)
    if is_compact and not report["input first"].holds and report["mean outweighs"].holds:
        remarks.append("under compact noise each input converges at the very end, but no r bounds when")
    return remarks


def _lasting_means(rates: dict[Node, Rates]) -> list[str]:
    return [f"{each.path}: α stays at {each.mean:g}" for each in rates.values() if each.mean and not each.mean_power]


def _lasting_widths(rates: dict[Node, Rates]) -> list[str]:
    return [f"{each.path}: β stays at {each.std:.4g}" for each in rates.values() if not each.std_power]


def _outweighing(rates: Iterable[Rates]) -> str:
    needs = {"−α >= r·β from some λ on" if each.noise.is_compact else "−α / β -> ∞" for each in rates}
    return f"at a threshold the upper level wins: {' or '.join(sorted(needs))}"


def _light_means(rates: dict[Node, Rates]) -> list[str]:
    reasons = ((each.path, lightness(each)) for each in rates.values())
    return [f"{path}: {reason}" for path, reason in reasons if reason is not None]


def _late(graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]) -> list[str]:
    return [f"{each}: {each.end:g} > {each.reader_end:g}" for each in late_inputs(graph, ranges, rates)]


def _wide_inputs(graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]) -> list[str]:
    return [
        f"{u.target} -> {v.target}"
        for u, v in graph.edges
        if ranges[u].start > ranges[v].start or ranges[u].end > ranges[v].end or rates[u].std_power < rates[v].std_power
    ]
