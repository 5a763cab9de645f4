"""The integers that operators compute with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = [
    "LARGEST_RATIO",
    "Coefficients",
    "Epsilon",
    "Kernel",
    "Operands",
    "Ratios",
    "ratios_of",
    "ratios_of_one_scale",
]

LARGEST_RATIO = 2**12 - 1
_RATIO_DIVISOR = 127  # odd, so that no sum of integers lies half-way between two levels


@dataclass(frozen=True)
class Operands:
    """What the coefficients of an operator follow from.

    Args:
        scales: Scale of each input, float32, 0-dimensional.
        shape: Shape of the first input.
        weight: Levels of the weight, or None.
        weight_scale: Its scale, float64, [channels] or [1].
        output_scale: Scale of the output, if it has one.
    """

    scales: tuple[Tensor, ...]
    shape: tuple[int, ...]
    weight: Tensor | None = None
    weight_scale: Tensor | None = None
    output_scale: Tensor | None = None


@dataclass(frozen=True)
class Coefficients:
    """The integers of a map, if it has any, and what one unit of its accumulator stands for: x_scale · unit.

    Args:
        x_scale: Scale of the input, float32, 0-dimensional.
        unit: Float64, [channels] or [1].
        integers: What `Operator.accumulate` takes as its weight.
    """

    x_scale: Tensor
    unit: Tensor
    integers: Tensor | None

    @property
    def is_signed(self) -> bool:
        """Whether the sign of a channel's gain goes into the integers of that channel."""
        return False

    def stored(self) -> Tensor | None:
        """The integers as a program stores them."""
        return self.integers

    def divided(self) -> tuple[Coefficients, int]:
        """The coefficients without a divisor that all share, and the divisor."""
        return self, 1


@dataclass(frozen=True)
class Kernel(Coefficients):
    """The levels of a weight, [out, in / groups, …]: a row for each output channel."""

    integers: Tensor

    @property
    def is_signed(self) -> bool:
        """Each row takes its channel's sign."""
        return True

    def stored(self) -> Tensor:
        """Int8."""
        return self.integers.to(torch.int8)


@dataclass(frozen=True)
class Ratios(Coefficients):
    """An integer for each of several tensors: its scale, counted in parts of a level of the output, [inputs]."""

    integers: Tensor

    def stored(self) -> Tensor:
        """Int32."""
        return self.integers.to(torch.int32)

    def divided(self) -> tuple[Ratios, int]:
        """Without their greatest common divisor."""
        divisor = math.gcd(*self.stored().tolist())
        return replace(self, integers=self.stored() // divisor), divisor


@dataclass(frozen=True)
class Epsilon(Coefficients):
    """What a normalisation adds to the variance of its rows, int64, 0-dimensional."""

    integers: Tensor


def ratios_of(operands: Operands, factors: tuple[float, ...]) -> Ratios:
    """Of tensors times factors: one accumulator unit is a fixed part of an output level."""
    y_scale = operands.output_scale
    assert y_scale is not None
    ratios = torch.stack(operands.scales).double() / y_scale.double() * _RATIO_DIVISOR
    sizes = torch.stack([ratio * abs(f) for ratio, f in zip(ratios, factors, strict=True)])
    signs = torch.tensor([-1.0 if f < 0 else 1.0 for f in factors], device=sizes.device)
    rounded = torch.round(sizes).clamp(1, LARGEST_RATIO).float() * signs
    return Ratios(y_scale, torch.ones(1, dtype=torch.float64, device=sizes.device) / _RATIO_DIVISOR, rounded)


def ratios_of_one_scale(operands: Operands, factors: tuple[float, ...]) -> Ratios:
    """Of tensors with one scale times factors: ±1 if these are equal but for their sign, else parts of the largest."""
    largest = max(map(abs, factors))
    parts = 1 if {abs(each) for each in factors} == {largest} else _RATIO_DIVISOR
    whole = [(1 if each > 0 else -1) * max(1, round(parts * abs(each) / largest)) for each in factors]
    device = operands.scales[0].device
    unit = torch.full((1,), largest / parts, dtype=torch.float64, device=device)
    return Ratios(operands.scales[0], unit, torch.tensor(whole, dtype=torch.float32, device=device))
