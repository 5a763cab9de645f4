"""The degrees of freedom that are a choice between names, with what follows from each choice (paper, section 4.1)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeVar

from ana_fx.text.wording import unknown

__all__ = ["DecayInterval", "DecayPower", "DepthRule", "Gradient", "GradientRule", "NoiseRule", "Strategy", "member"]

Member = TypeVar("Member", bound=Enum)


class Strategy(str, Enum):
    """What a noisy quantizer computes in the forward pass (paper, section 3); the backward pass is the same for all.

    `mode` is the quantizer of x less the mean of the noise. That is the most likely level while the half-width is at
    most half a step; under wider noise the outermost levels, whose bins have no end, can be likelier near them.
    """

    EXPECTATION = "expectation"
    """E[σ(x − ν)], the smooth curve."""
    MODE = "mode"
    """σ(x − α), α the mean of the noise: the quantizer itself."""
    RANDOM = "random"
    """σ(x − ν), with one draw of ν for each element."""

    @property
    def gives_levels(self) -> bool:
        """Whether its outputs are levels, with noise too."""
        return self in (Strategy.MODE, Strategy.RANDOM)


class DecayInterval(str, Enum):
    """How the annealing ranges of the depths divide the annealing time."""

    PARTITION = "partition"
    """One depth after the other."""
    SAME_START = "same_start"
    """All begin at once, and end one after the other."""
    SAME_END = "same_end"
    """All end at once, those near the input beginning last. It breaks the order in which noise should vanish."""
    OVERLAPPED = "overlapped"
    """All begin and end at once."""

    def periods(self, depth: int, num_depths: int) -> tuple[int, int]:
        """Begin and end of the range of a depth, in parts of the annealing time, which has one for each depth."""
        return {
            DecayInterval.PARTITION: (depth, depth + 1),
            DecayInterval.SAME_START: (0, depth + 1),
            DecayInterval.SAME_END: (num_depths - depth - 1, num_depths),
            DecayInterval.OVERLAPPED: (0, num_depths),
        }[self]

    @property
    def is_disjoint(self) -> bool:
        """Whether a range begins where the one before it has ended."""
        return self is DecayInterval.PARTITION

    @property
    def is_ordered(self) -> bool:
        """Whether no range begins or ends before that of a lesser depth."""
        return self is not DecayInterval.SAME_END


class DecayPower(str, Enum):
    """The decay's power: the same at every depth, or larger for layers nearer the input.

    The text calls progressive powers inversely proportional to the depth ℓ; as in the authors' program they are L − ℓ.
    """

    HOMOGENEOUS = "homogeneous"
    """The same power at every depth."""
    PROGRESSIVE = "progressive"
    """L − ℓ times the power at depth ℓ of L, counted from 0."""

    def factor(self, depth: int, num_depths: int) -> int:
        """By what the powers of a depth, counted from 0, are multiplied."""
        return {DecayPower.HOMOGENEOUS: 1, DecayPower.PROGRESSIVE: num_depths - depth}[self]


class DepthRule(str, Enum):
    """What the depth ℓ counts on the longest path to a layer map, and L in all (paper, sections 2.3 and 3).

    `layer_maps` counts each, as the paper's networks do, in which each has a weight. `weights` counts those with a
    weight; a sum, a pool or a table shares the depth, and so the range, of the deepest layer map that feeds it. Noise
    vanishes input first by either: the ends of both are one.
    """

    LAYER_MAPS = "layer_maps"
    WEIGHTS = "weights"


class NoiseRule(str, Enum):
    """Whether a noise parameter stays where it starts or decays to zero."""

    STATIC = "static"
    """It stays where it starts."""
    DYNAMIC = "dynamic"
    """It decays to zero over the annealing range."""

    def share(self, remaining: float, power: float) -> float:
        """What is left of the parameter (paper, eqs. 20 and 21): 1, or λ to the power."""
        decayed: float = remaining**power
        return {NoiseRule.STATIC: 1.0, NoiseRule.DYNAMIC: decayed}[self]


class GradientRule(str, Enum):
    """What the backward pass takes for the quantizer: the STE regularisation σ̃ of its target σ (paper, section 2.1).

    `expectation` is E[σ(x − ν)], ν the noise (Proposition 1). `relu` is the sum of max(0, x − θ) over all thresholds θ,
    whose derivative is the number of thresholds at or below x: 1 above the threshold of the Heaviside function, but up
    to K − 1 for K levels. No noise has it, since its density, 1 on [0, ∞), has no finite mass.
    """

    EXPECTATION = "expectation"
    RELU = "relu"


class Gradient(NamedTuple):
    """The gradient of a noisy quantizer.

    Args:
        rule: Of which function it is the derivative.
        mean: By how many steps that function's thresholds lie above those of the forward pass.
    """

    rule: GradientRule = GradientRule.EXPECTATION
    mean: float = 0.0

    def __str__(self) -> str:
        moved = f" moved by {self.mean:g} steps" if self.mean else ""
        return f"gradient of the {self.rule.value}{moved}"


def member(kind: type[Member], field: str, value: object) -> Member:
    """The member of an enumeration that a value names.

    Raises:
        ValueError: It names none; the message has `field` and the members.
    """
    try:
        return kind(value)
    except ValueError:
        raise ValueError(unknown(field, value, [each.value for each in kind])) from None
