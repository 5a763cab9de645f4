"""How fast the noise of each layer map vanishes, and convergence rates r_ℓ that its error beats.

Theorem 2 of Spallanzani et al. 2022 asks for convergence rates r_ℓ that satisfy its (15) to (18). Here all noise
decays by powers, α = −a·λ^d_α and β = b·λ^d_β, and so powers of λ are enough: r_ℓ = λ^p_ℓ, where λ is that of layer map
ℓ. Close to the end of its range the λ of all layer maps that end together are proportional, so one λ stands for all
of them. With F the distribution function of the family with mean 0 and deviation 1, σ_λ⁻¹(y) = α + β·F⁻¹(y).

(15), (16)  hold for any p_ℓ if α and β vanish: F⁻¹(ε·λ^p) grows at most as log(1/λ). (Noise of your own needs tails
            that fall exponentially for this.)
(17)        1 − σ_λ(0) = 1 − F(a/b·λ^(d_α − d_β)). For d_α < d_β it is 0 from some λ on (compact noise) or falls faster
            than every power (unbounded noise). For d_α = d_β it is 0 if the noise is compact with −α >= r·β, where
            [−r·β, r·β] is its support. Otherwise it does not vanish: then no r_ℓ exists.
(18)        −σ_v⁻¹(1 − ε·r_v) is at least a constant times λ^n from some λ on: n = d_α for d_α < d_β, and
            n = d_α + p_v for compact noise with d_α = d_β, because F⁻¹(1 − y) <= r − c·y, 1 / c the greatest density.
            Hence p_u > n is needed for every edge u -> v between layer maps that end together, and p_u = 1 + max n
            does. A layer map that ends before its reader asks for nothing: its features are exact when those of the
            reader begin to matter. One that ends after it leaves 0 in the denominator: then v has no r_v.

The p_ℓ are found from the last layer map back to the first. Quantised weights are one more input of their layer map,
with the same range and an argument without error: the same p does for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
from torch.fx import Node

from ana_fx.layers.quantizers import Quantizer
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import NoiseRule
from ana_fx.schedule.noise import NOISES, Noise
from ana_fx.schedule.schedule import Schedule

__all__ = [
    "LateInput",
    "Rates",
    "convergence_powers",
    "is_off_thresholds",
    "late_inputs",
    "lightness",
    "rates_of",
]


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


class LateInput(NamedTuple):
    """An input whose noise outlives that of the layer map that reads it, and when each ends."""

    path: str
    reader: Node
    end: float
    reader_end: float

    def __str__(self) -> str:
        return f"{self.path} -> {self.reader.target}"


def rates_of(ranges: dict[Node, AnnealingRange], schedule: Schedule) -> dict[Node, Rates]:
    """The power laws of each layer map."""
    num_depths = 1 + max((each.depth for each in ranges.values()), default=0)
    return {node: _rates(node, each, schedule, num_depths) for node, each in ranges.items()}


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


def is_off_thresholds(rates: Rates) -> bool:
    """Whether σ_λ(s) -> H(s) for every s ≠ 0: α and β vanish."""
    return bool(rates.std_power) and not (rates.mean and not rates.mean_power)


def lightness(rates: Rates) -> str | None:
    """Why the mean does not outweigh the width in the end, so that σ_λ(0) does not tend to 1; None if it does."""
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


def late_inputs(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]
) -> list[LateInput]:
    """The edges, and the shared weights, whose noise outlives that of the reader; noise that stays never ends."""
    ends = {node: each.end if rates[node].std_power else math.inf for node, each in ranges.items()}
    inputs = [(str(u.target), v, ends[u]) for u, v in graph.edges]
    last: dict[Quantizer, float] = {}
    for node in graph:
        for quantizer in graph.nodes[node]["layer_map"].quantizers():
            last[quantizer] = max(ends[node], last.get(quantizer, 0.0))
    for node in graph:
        weight_quantizer = graph.nodes[node]["layer_map"].weight_quantizer
        if weight_quantizer is not None:
            inputs.append(("its shared weight", node, last[weight_quantizer]))
    return [LateInput(path, reader, end, ends[reader]) for path, reader, end in inputs if end > ends[reader]]


def convergence_powers(
    graph: nx.DiGraph[Node], ranges: dict[Node, AnnealingRange], rates: dict[Node, Rates]
) -> dict[Node, float | None]:
    """For each layer map the p of a rate r = λ^p as the theorem asks for, None where none exists; in graph order.

    None exists either for what a layer map without one feeds.
    """
    late = {each.reader for each in late_inputs(graph, ranges, rates)}
    powers: dict[Node, float | None] = {}
    has_rate: set[Node] = set()
    for node in graph:  # in graph order: inputs first
        holds = node not in late and is_off_thresholds(rates[node]) and lightness(rates[node]) is None
        if holds and has_rate.issuperset(graph.predecessors(node)):
            has_rate.add(node)
    for node in reversed(list(graph)):
        needed = [
            _needed(rates[reader], power)
            for reader in graph.successors(node)
            if ranges[reader].end == ranges[node].end and (power := powers[reader]) is not None
        ]
        powers[node] = 1.0 + max(needed, default=0.0) if node in has_rate else None
    return {node: powers[node] for node in graph}


def _needed(reader: Rates, power: float) -> float:
    """n of (18): the power of λ that bounds −σ_v⁻¹(1 − ε·r_v) from below."""
    return reader.mean_power + (power if reader.mean_power == reader.std_power else 0.0)
