"""What every operator is: the map S of a layer map φ = σ∘S, on reals and on integers alike.

An operator is a frozen description of one map. `real` is the map on reals; `accumulate` is its integer form, a map with
integer coefficients on levels, whose results are called accumulators. What passes and targets want to know of an
operator they ask it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ana_fx.numerics.integer_type import EXACT_FLOAT32, LARGEST_WEIGHT
from ana_fx.operators.coefficients import Coefficients, Kernel, Operands
from ana_fx.requantizers.requantizer import Requantizer

__all__ = ["Functions", "Operator"]


@dataclass(frozen=True)
class Functions:
    """The functions and methods of torch that compute one operator.

    Args:
        canonical: The function that canonical graphs call, tensors first.
        build: From its arguments behind the tensors to the operator.
        others: Functions, and methods by name, that take the same tensors.
        num_tensors: How many tensors it takes, before all other arguments.
        takes_numbers: Whether one of two operands may be a number; then the map is a line.
    """

    canonical: Callable[..., Any]
    build: Callable[..., Operator]
    others: tuple[Callable[..., Any] | str, ...] = ()
    num_tensors: int = 1
    takes_numbers: bool = False


class Operator(ABC):
    """A map on tensors with an optional weight.

    The class says what holds of every such map:

    - `kind`: the name by which targets say that they have it.
    - `num_inputs`, `has_weight`: what it reads.
    - `is_exact_in_floats`: whether float kernels that only multiply and add give its accumulators exactly.
    - `requantizers`: the formulas by which targets requantise its accumulators; `SHIFT` is always one of them.
    - `has_headroom`: whether its coefficients may be stored an odd factor larger, so that no accumulator meets a tie.
    - `aligns_inputs`: whether a target that multiplies no coefficient needs inputs of one scale.
    - `takes_batch_norm`: whether a batch norm behind it becomes a part of its layer map.
    - `is_standardized`: whether its outputs have mean 0 and deviation 1 in each channel.
    - `can_be_logits`, `are_logits`: whether its accumulators may leave the model as int32, and do so by default.
    - `has_one_weight_scale`: whether its weight cannot have a scale for each channel.
    - `has_float_form`: whether files can hold it in floats, between integers.
    - `keeps_inputs`: whether a training step keeps what it reads for backward, or may, since networks have few of them.
    """

    kind: ClassVar[str]
    num_inputs: ClassVar[int] = 1
    has_weight: ClassVar[bool] = False
    is_exact_in_floats: ClassVar[bool] = True
    requantizers: ClassVar[frozenset[Requantizer]] = frozenset(Requantizer)
    has_headroom: ClassVar[bool] = False
    aligns_inputs: ClassVar[bool] = False
    takes_batch_norm: ClassVar[bool] = True
    is_standardized: ClassVar[bool] = False
    can_be_logits: ClassVar[bool] = False
    are_logits: ClassVar[bool] = False
    has_one_weight_scale: ClassVar[bool] = False
    has_float_form: ClassVar[bool] = False
    keeps_inputs: ClassVar[bool] = True

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """How functions of torch spell it."""
        return ()

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Operator]]:
        """The modules of torch that compute it, and for each the operator of one that is given."""
        return {}

    @abstractmethod
    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The map on reals; all tensors of one dtype."""

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The accumulator, from levels and integer coefficients."""
        return self.real(inputs, weight)

    @property
    def num_spatial_axes(self) -> int:
        """The spatial axes of a convolution or a pool, else 0."""
        return 0

    @property
    def takes_channel_affine(self) -> bool:
        """Whether `real` multiplies by the weight and adds the bias of each channel that follow it."""
        return False

    @property
    def takes_input_affine(self) -> bool:
        """Whether a factor and an offset of each input channel can go into its weight and its bias."""
        return False

    @property
    def num_groups(self) -> int:
        """The groups of channels of which each output sees one."""
        return 1

    def num_input_channels(self, weight: Tensor) -> int | None:
        """The length of axis 1 of what it reads, as far as its weight tells it."""
        return None

    @property
    def largest_coefficient(self) -> int | None:
        """The largest coefficient of its inputs where these have one scale; None where that does not tell it."""
        return None

    def for_one_scale(self, shares_scale: bool) -> Operator:
        """The same map, told whether its inputs have one scale: kernels that add such tensors multiply nothing."""
        return self

    def with_magnitudes(self) -> Operator:
        """The same map with the absolute value of each of its own factors; a weight is none of these."""
        return self

    @property
    def keeps_sign(self) -> bool:
        """Whether inputs without negative numbers give outputs without, whatever a weight becomes."""
        return False

    def channel_axis(self, rank: int) -> int:
        """The axis of a result of that rank which carries the channels."""
        return 1

    def fixed(self, shape: tuple[int, ...]) -> Operator:
        """The same map for first inputs of that shape only."""
        return self

    def divisor(self, shape: tuple[int, ...]) -> int:
        """By what the accumulator of reals is divided to give the map on reals: the number of terms of an average."""
        return 1

    def is_depthwise(self, weight: Tensor) -> bool:
        """Whether each output channel has one input channel, and the other way round."""
        return False

    def adds_pairs(self, weight: Tensor | None) -> bool:
        """Whether kernels may add two of its products before they widen the sum; in depthwise ones they never do."""
        return self.has_weight and weight is not None and not self.is_depthwise(weight)

    def integer_weight(self, weight: Tensor) -> Tensor:
        """The levels of the weight as `accumulate` takes them, output channels first."""
        return weight

    def coefficients(self, operands: Operands) -> Coefficients:
        """What the map computes with on integers."""
        if operands.weight is None or operands.weight_scale is None:
            unit = torch.ones(1, dtype=torch.float64, device=operands.scales[0].device) / self.divisor(operands.shape)
            return Coefficients(operands.scales[0], unit, None)
        return Kernel(operands.scales[0], operands.weight_scale, self.integer_weight(operands.weight))

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """No accumulator exceeds this in absolute value.

        Args:
            magnitudes: Largest absolute value of each input's levels.
            shape: Shape of the first input.
            row: What the absolute values of one output channel's weights add up to at most.
        """
        return (row if self.has_weight else self.divisor(shape)) * magnitudes[0]

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

    def weight_range(self, weight: Tensor | None) -> str | None:
        """The smallest and largest coefficient, for people; None where there are none."""
        return None if weight is None else f"{int(weight.min())}…{int(weight.max())}"

    def misfit(self, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> str | None:
        """Why its intermediates do not fit the integers that compute them; None if they do."""
        return None
