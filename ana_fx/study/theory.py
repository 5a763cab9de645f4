"""Compositional convergence: when the noisy network tends to the quantised one, and why the order matters.

Layer map ℓ computes x_ℓ = σ(S(x_{ℓ−1})), S affine; with noise x_{λ,ℓ} = σ_λ(S(x_{λ,ℓ−1})), where
σ_λ(s) = E[σ(s − ν)] = q_0 + Σ_k (q_k − q_{k−1})·F(s − θ_k), F the distribution function of ν with mean α(λ) and
standard deviation β(λ), and λ falls from 1 to 0 over the layer map's annealing range. Theorem 2 of Spallanzani et
al. 2022 says when x_{λ,ℓ} -> x_ℓ for every input. Its hypotheses (11) to (18) are not reproduced here: the
conditions below are derived anew, for the power laws and the four families of this library, and are sufficient.

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
   the wrong side until the very end, however small e is. Then the error of v is a whole level, and does not vanish.

Without `mean outweighs` the claim holds for all inputs that meet no threshold, since step 2 is not needed; after
the end of its range, every layer map whose inputs are exact is exact. `in step` is not needed for the limit: it says
that at every moment no input is relatively wider than its reader, so that errors fall from the input on.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from torch import nn
from torch.fx import Node

from ana_fx.annealing.ordering import annealing_order, layer_map_graph
from ana_fx.layers.quantizers import Quantizer
from ana_fx.prepared.recognize import prepared
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import NoiseRule
from ana_fx.schedule.noise import NOISES, Noise
from ana_fx.schedule.schedule import Schedule
from ana_fx.study.convergence import Convergence, compositional_convergence

__all__ = ["Convergence", "Hypothesis", "HypothesisReport", "Rates", "check_hypotheses", "compositional_convergence"]


@dataclass(frozen=True)
class Rates:
    """How the noise of one layer map decays: α = mean·λ^mean_power and β = std·λ^std_power, in steps.

    A power of 0 is a parameter that stays. A static mean is part of the thresholds: mean = 0.
    """

    path: str
    mean: float
    mean_power: float
    std: float
    std_power: float
    noise: Noise = NOISES["uniform"]

    def __str__(self) -> str:
        mean = f"{self.mean:g}·λ^{self.mean_power:g}" if self.mean else "0"
        return f"{self.path}: α = {mean}, β = {self.std:.4g}·λ^{self.std_power:g}"


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
class HypothesisReport:
    """The conditions of the theorem for one model under one schedule, and the rates they were checked with."""

    noise: Noise
    hypotheses: tuple[Hypothesis, ...]
    rates: tuple[Rates, ...]

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

    def __str__(self) -> str:
        lines = [f"{self.noise.name} noise"]
        for each in self.hypotheses:
            lines.append(f"  {'holds' if each.holds else 'fails'}  {each.name}: {each.statement}")
            lines += [f"           {failure}" for failure in each.failures]
        return "\n".join([*lines, *(f"  {rates}" for rates in self.rates)])


def check_hypotheses(qat: nn.Module, schedule: Schedule | None = None) -> HypothesisReport:
    """Check the conditions at the top of `ana_fx.study.theory` for a prepared model.

    Args:
        qat: What `prepare` returned.
        schedule: Another schedule than the model's own; None is its own.

    Raises:
        TypeError: `qat` is no module.
        ValueError: It was not prepared, or its schedule is a function, whose noise need not be a power of λ.

    Example:
        >>> import ana_fx
        >>> from torch import nn
        >>> qat = ana_fx.prepare(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
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
    rates = {
        node: _rates(node, ranges[node], schedule, 1 + max((r.depth for r in ranges.values()), default=0))
        for node in graph
    }
    noise = schedule.noise
    hypotheses = (
        Hypothesis("mean vanishes", "α -> 0 as λ -> 0", tuple(_lasting_means(rates))),
        Hypothesis("width vanishes", "β -> 0 as λ -> 0", tuple(_lasting_widths(rates))),
        Hypothesis("mean outweighs", _outweighing(noise), tuple(_light_means(rates))),
        Hypothesis("input first", "end(u) <= end(v) for every edge u -> v", tuple(_late_inputs(graph, ranges))),
        Hypothesis(
            "in step", "no input is relatively wider than its reader", tuple(_wide_inputs(graph, ranges, rates))
        ),
    )
    return HypothesisReport(noise, hypotheses, tuple(rates.values()))


def _rates(node: Node, annealing_range: AnnealingRange, schedule: Schedule, num_depths: int) -> Rates:
    own = schedule.constants(annealing_range)
    power = schedule.power.factor(annealing_range.depth, num_depths)
    is_mean_dynamic, is_std_dynamic = own.mean_rule is NoiseRule.DYNAMIC, own.std_rule is NoiseRule.DYNAMIC
    return Rates(
        str(node.target),
        own.mean if is_mean_dynamic else 0.0,
        own.mean_power * power if is_mean_dynamic else 0.0,
        own.noise.std_of(own.half_width),
        own.std_power * power if is_std_dynamic else 0.0,
        own.noise,
    )


def _lasting_means(rates: dict[Node, Rates]) -> list[str]:
    return [f"{each.path}: α stays at {each.mean:g}" for each in rates.values() if each.mean and not each.mean_power]


def _lasting_widths(rates: dict[Node, Rates]) -> list[str]:
    return [f"{each.path}: β stays at {each.std:.4g}" for each in rates.values() if not each.std_power]


def _outweighing(noise: Noise) -> str:
    need = "−α >= r·β from some λ on" if noise.is_compact else "−α / β -> ∞"
    return f"at a threshold the upper level wins: {need}"


def _light_means(rates: dict[Node, Rates]) -> list[str]:
    reasons = ((each.path, _lightness(each)) for each in rates.values())
    return [f"{path}: {reason}" for path, reason in reasons if reason is not None]


def _lightness(rates: Rates) -> str | None:
    """Why the mean does not outweigh the width in the end, or None if it does."""
    if rates.mean == 0.0:
        return "α = 0, so at a threshold both levels keep half of the probability"
    if rates.mean > 0.0:
        return f"α is positive ({rates.mean:g}), so at a threshold the lower level wins"
    if rates.mean_power < rates.std_power:
        return None
    ratio = f"−α / β = {-rates.mean / rates.std:.4g}·λ^{rates.mean_power - rates.std_power:g}"
    if rates.mean_power > rates.std_power:
        return f"{ratio} -> 0"
    reach = rates.noise.half_width
    if rates.noise.is_compact:
        return None if -rates.mean >= reach * rates.std else f"{ratio}, needed r = {reach:.4g}"
    return f"{ratio} stays finite"


def _late_inputs(graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange]) -> list[str]:
    """The edges, and the shared weights, whose noise outlives that of the reader."""
    ends = [(str(u.target), v, ranges[u].end) for u, v in graph.edges]
    last: dict[Quantizer, float] = {}
    for node in graph:
        for quantizer in graph.nodes[node]["layer_map"].quantizers():
            last[quantizer] = max(ranges[node].end, last.get(quantizer, 0.0))
    for node in graph:
        weight_quantizer = graph.nodes[node]["layer_map"].weight_quantizer
        if weight_quantizer is not None:
            ends.append(("its shared weight", node, last[weight_quantizer]))
    return [f"{u} -> {v.target}: {end:g} > {ranges[v].end:g}" for u, v, end in ends if end > ranges[v].end]


def _wide_inputs(graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]) -> list[str]:
    return [
        f"{u.target} -> {v.target}"
        for u, v in graph.edges
        if ranges[u].start > ranges[v].start or ranges[u].end > ranges[v].end or rates[u].std_power < rates[v].std_power
    ]
