"""The modules of a lowered program: integers in, integers out, except at the borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.layers.softmax_map import SoftmaxForm, integer_softmax
from ana_fx.layers.table_map import look_up
from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.base_operator import Operator
from ana_fx.program.tensor_spec import LevelRange
from ana_fx.requantizers.multiply_shift import MultiplyShift
from ana_fx.requantizers.staircase import ScaledStaircase, Staircase, along
from ana_fx.requantizers.threshold_staircase import ThresholdStaircase

__all__ = [
    "Accumulating",
    "IntegerConstant",
    "IntegerHead",
    "IntegerMap",
    "IntegerMaxPool",
    "IntegerSoftmax",
    "IntegerTable",
    "IntegerThresholds",
    "Proof",
    "Repeat",
]


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
        """A QLinear staircase says how much larger than the trained ones the stored weights are."""
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


class IntegerTable(Float32Module):
    """A function of each level: the entry of `table` for it, [1 or channels on axis 1, levels].

    `lo` and `hi` are the range of its entries and of 0, which whatever reads them can pad with.
    """

    table: Tensor

    def __init__(self, table: Tensor, lowest: int, integer_type: IntegerType, output_scale: Tensor) -> None:
        super().__init__()
        self.lowest = lowest
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.lo, self.hi = _range_with_zero(table)
        self.register_buffer("table", table.to(integer_type.dtype))

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.lo, self.hi, self.output_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels."""
        return look_up(self.table, x.to(torch.int64) - self.lowest)


class IntegerSoftmax(Float32Module):
    """Softmax over one axis (see `ana_fx.layers.softmax_map`)."""

    table: Tensor

    def __init__(self, axis: int, form: SoftmaxForm, integer_type: IntegerType) -> None:
        super().__init__()
        self.axis = axis
        self.highest = form.highest
        self.is_nearest = form.is_nearest
        self.integer_type = integer_type
        self.output_scale = form.output_scale
        self.register_buffer("table", form.table)

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, 0, self.integer_type.qmax, self.output_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels."""
        levels = integer_softmax(x.to(torch.int64), self.axis, self.table, self.highest, self.is_nearest)
        return levels.to(self.integer_type.dtype)


class IntegerConstant(Float32Module):
    """Levels that do not depend on the input; they have no batch axis.

    `lo` and `hi` are their range and that of 0, which whatever reads them can pad with.
    """

    levels: Tensor

    def __init__(self, levels: Tensor, integer_type: IntegerType, output_scale: Tensor) -> None:
        super().__init__()
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.lo, self.hi = _range_with_zero(levels)
        self.register_buffer("levels", levels.to(integer_type.dtype))

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.lo, self.hi, self.output_scale)

    def forward(self) -> Tensor:
        """The levels."""
        return self.levels


class Repeat(nn.Module):
    """A constant for each sample of another tensor."""

    def forward(self, constant: Tensor, samples: Tensor) -> Tensor:
        """[*shape] and [N, …] to [N, *shape]."""
        return constant.expand(samples.shape[0], *constant.shape)


class IntegerMaxPool(nn.Module):
    """Max pooling of levels; float32 holds them exactly on every device.

    Args:
        kernel: Size of the window along each spatial axis.
        stride: Distance of windows.
        padding: (before, after) for each axis, of numbers that are never the largest.
        dilation: Distance of a window's elements.
    """

    def __init__(
        self,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        dilation: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels of the same type."""
        pads = [pad for pair in reversed(self.padding) for pad in pair]
        padded = F.pad(x.to(torch.float32), pads, value=-torch.inf)
        pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.kernel) - 1]
        return pool(padded, self.kernel, self.stride, 0, self.dilation).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


def _range_with_zero(levels: Tensor) -> tuple[int, int]:
    return min(int(levels.min()), 0), max(int(levels.max()), 0)
