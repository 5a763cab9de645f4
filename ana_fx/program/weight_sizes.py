"""How many bytes the weights of a layer take, beside float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.integer_layers import Accumulating

__all__ = ["NO_WEIGHTS", "WeightSize", "weight_size", "weights_line"]

_FLOAT_BITS = 32


@dataclass(frozen=True)
class WeightSize:
    """The weights of a layer.

    Args:
        number: How many there are.
        bits: The fewest bits that hold each of them; 32 in floats.
    """

    number: int
    bits: int

    @property
    def packed_bytes(self) -> int:
        """Their bytes, packed with so many bits each."""
        return -(-self.number * self.bits // 8)

    @property
    def float_bytes(self) -> int:
        """Their bytes in float32."""
        return self.number * _FLOAT_BITS // 8


NO_WEIGHTS = WeightSize(0, 0)


def weight_size(module: nn.Module | None) -> WeightSize:
    """The weights of a layer map of a prepared model, or of a module of a program; those of an average are none."""
    if isinstance(module, Accumulating):
        return _of_levels(module.weight) if module.operator.has_weight and module.weight is not None else NO_WEIGHTS
    if not isinstance(module, OperatorMap) or module.weight is None:
        return NO_WEIGHTS
    quantizer = module.weight_quantizer
    return WeightSize(module.weight.numel(), _FLOAT_BITS if quantizer is None else _bits_of(quantizer.integer_type))


def _bits_of(integer_type: IntegerType) -> int:
    limit = integer_type.limit
    return integer_type.bits if limit is None else min(integer_type.bits, limit.bit_length() + 1)


def _of_levels(weight: torch.Tensor) -> WeightSize:
    """Lowering gives a channel the sign of its gain, so the negatives of its levels count too."""
    rows = weight.to(torch.int64).flatten(1)
    lowest, highest = rows.amin(1), rows.amax(1)
    largest = torch.minimum(torch.maximum(-lowest - 1, highest), torch.maximum(highest - 1, -lowest))
    return WeightSize(weight.numel(), max(2, int(largest.max()).bit_length() + 1))


def weights_line(weight_bytes: int, float_bytes: int, how: str = "") -> str:
    """The bytes of all weights in a line.

    >>> weights_line(500, 4000, " packed")
    'Weights: 500 bytes packed, 1/8.0 of 4,000 in float32.'
    """
    if not weight_bytes:
        return "Weights: none."
    return f"Weights: {weight_bytes:,} bytes{how}, 1/{float_bytes / weight_bytes:.1f} of {float_bytes:,} in float32."
