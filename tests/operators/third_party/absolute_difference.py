"""What a package of another author holds that adds |x₀ − x₁|: an operator, its writer, a target, two entry points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx import Target
from ana_fx.operators.base_operator import Functions, Operator
from ana_fx.operators.coefficients import LARGEST_RATIO, Operands, Ratios, ratios_of
from ana_fx.target import OPERATORS
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.writers.write_requantizer import requantized

__all__ = ["DIALECT", "TARGET", "AbsoluteDifference", "absolute_difference"]


def absolute_difference(first: Tensor, second: Tensor) -> Tensor:
    """What models call."""
    return (first - second).abs()


@dataclass(frozen=True)
class AbsoluteDifference(Operator):
    """|x₀ − x₁|; accumulated as |c₀·n₀ − c₁·n₁| with the weight [c₀, c₁]."""

    kind = "absolute_difference"
    num_inputs = 2

    @classmethod
    def functions(cls) -> tuple[Functions, ...]:
        """The function above."""
        return (Functions(absolute_difference, cls, num_tensors=2),)

    @property
    def keeps_sign(self) -> bool:
        """It is never negative."""
        return True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """|x₀ − x₁|."""
        return absolute_difference(*inputs)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """|c₀·n₀ − c₁·n₁|."""
        assert weight is not None
        return absolute_difference(inputs[0] * weight[0], inputs[1] * weight[1])

    def coefficients(self, operands: Operands) -> Ratios:
        """One accumulator unit is a fixed part of an output level."""
        return ratios_of(operands, (1.0, 1.0))

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """Each coefficient is the largest there is."""
        return LARGEST_RATIO * sum(magnitudes)

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """From 0 to where the tensors are furthest apart."""
        assert weight is not None
        first, second = map(int, weight.tolist())
        (low, high), (other_low, other_high) = levels
        furthest = max(first * high - second * other_low, second * other_high - first * low)
        return torch.tensor([0]), torch.tensor([furthest])


def write_difference(w: NodeWriter, op: AbsoluteDifference) -> ir.Value:
    """Write Abs of the difference of the products with the coefficients."""
    assert w.weight is not None
    products = [
        w.op("Mul", w.levels(x), w.number(coefficient, "coefficient"), shape=x.shape)
        for x, coefficient in zip(w.inputs, w.weight.tolist(), strict=True)
    ]
    return w.op("Abs", w.op("Sub", *products))


DIALECT = INTEGER.extended({AbsoluteDifference: requantized(write_difference)}, more_operators=frozenset({("", "Abs")}))

TARGET = Target(
    "difference",
    "the integer dialect with absolute differences",
    emitter=f"{__name__}:DIALECT",
    operators=OPERATORS | {AbsoluteDifference.kind},
)
