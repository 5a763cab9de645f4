"""The layer maps of a lowered program: an operator on integers, then levels or logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.base_operator import Operator
from ana_fx.program.tensor_spec import LevelRange
from ana_fx.requantizers.multiply_shift import MultiplyShift
from ana_fx.requantizers.staircase import ScaledStaircase, Staircase, along
from ana_fx.requantizers.threshold_staircase import ThresholdStaircase

__all__ = ["Accumulating", "IntegerHead", "IntegerMap", "IntegerThresholds", "Proof"]


@dataclass(frozen=True)
class Proof:
    """That a requantizer equals the trained staircase: how many channels and thresholds were compared."""

    num_channels: int
    num_thresholds: int


class Accumulating(Float32Module):
    """What integer maps and heads share: coefficients and the range of their accumulators.

    `lowest` and `highest` are the extreme accumulators of each channel, int64, [channels] or [1]; no
    accumulator, whole or partial, exceeds `bound` in absolute value. `pair_sum` bounds the sum of two neighbouring
    products where kernels of the target add these in 16 bits, and is None elsewhere.
    """

    weight: Tensor | None

    def __init__(self, operator: Operator, weight: Tensor | None, lowest: Tensor, highest: Tensor) -> None:
        super().__init__()
        self.operator = operator
        self.lowest = lowest
        self.highest = highest
        self.bound = int(torch.maximum(-lowest, highest).max())
        self.pair_sum: int | None = None
        self.register_buffer("weight", weight)

    def stored_weight(self) -> Tensor:
        """The weight as files store it, with its head-room, int32."""
        assert self.weight is not None
        return self.weight.int()

    def extra_repr(self) -> str:
        """What `print(program)` shows: the map, its coefficients, and how large a sum can get."""
        weight = self.operator.weight_range(self.weight)
        parts = [self.operator.kind, *([] if weight is None else [f"weights {weight}"]), f"sums within ±{self.bound:,}"]
        integer_type = getattr(self, "integer_type", None)
        return ", ".join([*parts, *([] if integer_type is None else [f"gives {integer_type}"])])

    def accumulate(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The exact accumulators, int64."""
        return accumulate(self.operator, inputs, self.weight, bound=self.bound, integer=torch.int64)


class IntegerMap(Accumulating):
    """An integer affine map and its requantizer, in two encodings that are proven equal.

    `forward` computes with multiplications and shifts; `staircase` is the trained formula with the
    same result.
    """

    sign: Tensor
    multiplier: Tensor
    offset: Tensor
    shift: Tensor
    correction: Tensor | None

    def __init__(
        self,
        operator: Operator,
        weight: Tensor | None,
        lowest: Tensor,
        highest: Tensor,
        *,
        sign: Tensor,
        staircase: Staircase,
        multiply_shift: MultiplyShift,
        integer_type: IntegerType,
        output_scale: Tensor,
    ) -> None:
        super().__init__(operator, weight, lowest, highest)
        self.staircase = staircase
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.lo, self.hi = int(multiply_shift.lo), int(multiply_shift.hi)
        self.proof: Proof | None = None
        self.register_buffer("sign", sign.expand(len(multiply_shift.multiplier)).clone())
        self.register_buffer("multiplier", multiply_shift.multiplier.clone())  # views of one tensor, torch.export warns
        self.register_buffer("offset", multiply_shift.offset.clone())
        self.register_buffer("shift", multiply_shift.shift.clone())
        self.register_buffer("correction", multiply_shift.correction)

    def stored_weight(self) -> Tensor:
        """A staircase with scales says how much larger than the trained ones the stored weights are."""
        factor = self.staircase.factor if isinstance(self.staircase, ScaledStaircase) else 1
        return super().stored_weight() * factor

    def signed_range(self) -> tuple[Tensor, Tensor]:
        """The extreme accumulators once each has the sign of its channel's gain, int64, [channels]."""
        sign = self.sign.cpu()
        ends = torch.stack([self.lowest * sign, self.highest * sign])
        return ends.amin(0), ends.amax(0)

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.lo, self.hi, self.output_scale)

    @property
    def multiply_shift(self) -> MultiplyShift:
        """The requantizer of accumulators that have the sign of their channel's gain."""
        return MultiplyShift(self.lo, self.hi, self.multiplier, self.offset, self.shift, self.correction)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Levels to levels."""
        accumulator = self.accumulate(inputs)
        axis = self.operator.channel_axis(accumulator.ndim)
        signed = accumulator * along(self.sign, axis, accumulator.ndim)
        return self.multiply_shift.level(signed, axis).to(self.integer_type.dtype)


class IntegerThresholds(Accumulating):
    """An integer map whose levels are those of a codebook: q_0 + Σ_k (q_k − q_{k−1}) · [acc ≥ T_k].

    Args:
        operator: The map.
        weight: Its integer coefficients, if it has any.
        lowest: The smallest accumulator of each channel.
        highest: The largest one.
        sign: That of each channel's gain, int64, [channels] or [1].
        thresholds: T for accumulators with that sign, int64, [channels, levels − 1].
        integer_type: The type, whose codebook has the levels.
        output_scale: The real value of one level, float32.
    """

    sign: Tensor
    thresholds: Tensor

    def __init__(
        self,
        operator: Operator,
        weight: Tensor | None,
        lowest: Tensor,
        highest: Tensor,
        *,
        sign: Tensor,
        thresholds: Tensor,
        integer_type: IntegerType,
        output_scale: Tensor,
    ) -> None:
        super().__init__(operator, weight, lowest, highest)
        if len(integer_type.levels) != thresholds.shape[-1] + 1:
            raise ValueError(
                f"{integer_type} has {len(integer_type.levels) - 1} thresholds, got {thresholds.shape[-1]}"
            )
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.register_buffer("sign", sign.expand(len(thresholds)).clone())
        self.register_buffer("thresholds", thresholds)

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives, and 0."""
        lo, hi = min(self.integer_type.qmin, 0), max(self.integer_type.qmax, 0)
        return LevelRange(self.integer_type, lo, hi, self.output_scale)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Levels to levels."""
        accumulator = self.accumulate(inputs)
        axis = self.operator.channel_axis(accumulator.ndim)
        signed = accumulator * along(self.sign, axis, accumulator.ndim)
        staircase = ThresholdStaircase(self.integer_type.levels, self.thresholds)
        return staircase.level(signed, axis).to(self.integer_type.dtype)


class IntegerHead(Accumulating):
    """A last layer whose accumulators, `factor` times finer and with a bias, are the output."""

    bias: Tensor

    def __init__(
        self,
        operator: Operator,
        weight: Tensor | None,
        lowest: Tensor,
        highest: Tensor,
        *,
        factor: int,
        bias: Tensor,
    ) -> None:
        super().__init__(operator, weight, lowest, highest)
        self.factor = factor
        self.register_buffer("bias", bias)

    def stored_weight(self) -> Tensor:
        """As many times the trained ones as the logits are finer."""
        return super().stored_weight() * self.factor

    def forward(self, *inputs: Tensor) -> Tensor:
        """Levels to int32 logits."""
        accumulator = self.accumulate(inputs)
        shape = [1] * accumulator.ndim
        shape[self.operator.channel_axis(accumulator.ndim)] = -1
        return (accumulator * self.factor + self.bias.reshape(shape)).to(torch.int32)
