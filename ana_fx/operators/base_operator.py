"""What every operator is: the map S of a layer map φ = σ∘S, on reals and on integers alike.

Each operator is a frozen description of one map. `real` is the map on reals, `accumulate` its integer
form: a map with integer coefficients on levels, whose results are called accumulators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ana_fx.numerics.integer_type import EXACT_FLOAT32, LARGEST_WEIGHT

__all__ = ["Coefficients", "Operator"]


@dataclass(frozen=True)
class Coefficients:
    """The integers of a map, and what one unit of its accumulator stands for: x_scale · unit.

    Args:
        x_scale: Scale of the input, float32, 0-dimensional.
        weight: Integer coefficients, or None if there are none.
        unit: Float64, [channels] or [1].
    """

    x_scale: Tensor
    weight: Tensor | None
    unit: Tensor


class Operator(ABC):
    """A map on tensors with an optional weight. `kind` is the name by which targets say that they have it."""

    kind: ClassVar[str]
    num_inputs: ClassVar[int] = 1
    has_weight: ClassVar[bool] = False
    is_exact_in_floats: ClassVar[bool] = True

    @abstractmethod
    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The map on reals; all tensors of one dtype."""

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The accumulator, from levels and integer coefficients."""
        return self.real(inputs, weight)

    def channel_axis(self, rank: int) -> int:
        """The axis of a result of that rank which carries the channels."""
        return 1

    def fixed(self, shape: tuple[int, ...]) -> Operator:
        """The same map for first inputs of that shape only."""
        return self

    def divisor(self, shape: tuple[int, ...]) -> int:
        """The map on reals is the accumulator of the same numbers divided by this."""
        return 1

    def is_depthwise(self, weight: Tensor) -> bool:
        """Whether each output channel has one input channel, and the other way round."""
        return False

    def integer_weight(self, weight: Tensor) -> Tensor:
        """The levels of the weight as `accumulate` takes them, output channels first."""
        return weight

    def coefficients(
        self,
        weight: Tensor | None,
        weight_scale: Tensor | None,
        scales: tuple[Tensor, ...],
        y_scale: Tensor | None,
        shape: tuple[int, ...],
    ) -> Coefficients:
        """What the map computes with on integers.

        Args:
            weight: Levels of the weight, or None.
            weight_scale: Its scale, float64, [channels] or [1].
            scales: Scale of each input, float32.
            y_scale: Scale of the output, if it has one.
            shape: Shape of the first input.
        """
        if weight is None or weight_scale is None:
            unit = torch.ones(1, dtype=torch.float64, device=scales[0].device) / self.divisor(shape)
            return Coefficients(scales[0], None, unit)
        return Coefficients(scales[0], self.integer_weight(weight), weight_scale)

    def bound(self, num_terms: int, weight_magnitude: int, magnitudes: tuple[int, ...], shape: tuple[int, ...]) -> int:
        """No accumulator exceeds this in absolute value.

        Args:
            num_terms: Products in one accumulator, of a map with a weight.
            weight_magnitude: Largest absolute value of a coefficient, likewise.
            magnitudes: Largest absolute value of each input's levels.
            shape: Shape of the first input.
        """
        if self.has_weight:
            return num_terms * weight_magnitude * magnitudes[0]
        return self.divisor(shape) * magnitudes[0]

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """The smallest and largest accumulator of each channel, int64, [channels] or [1].

        Every input can be level 0, so these bound the partial sums too.

        Args:
            weight: The integer coefficients, of at most 8 bits.
            levels: Lowest and highest level of each input.
            shape: Shape of the first input.
        """
        lo, hi = levels[0]
        if weight is None:
            terms = self.divisor(shape)
            return torch.tensor([terms * lo]), torch.tensor([terms * hi])
        rows = weight.flatten(1)
        is_small = rows.shape[1] * LARGEST_WEIGHT <= EXACT_FLOAT32  # float sums are exact, and much faster than int64
        rows = rows.to(torch.float32 if is_small else torch.float64)
        positive_sum, total = rows.clamp_min(0).sum(1).to(torch.int64), rows.sum(1).to(torch.int64)
        negative_sum = total - positive_sum
        return positive_sum * lo + negative_sum * hi, positive_sum * hi + negative_sum * lo
