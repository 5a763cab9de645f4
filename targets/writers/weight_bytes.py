"""How the weights of a product are stored, so that every kernel multiplies them exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ana_fx.numerics.pair_sums import PAIR_LIMIT, largest_pair_sum
from ana_fx.operators.base_operator import Operator
from ana_fx.target import Target
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor

__all__ = ["WIDE_REASON", "WeightBytes", "is_dense", "largest_byte", "store_weight", "write_bytes"]

_SIGNED_ZERO = 128
WIDE_REASON = "uint8 weights: pairs of int8 ones could leave 16 bits"


@dataclass(frozen=True)
class WeightBytes:
    """Integer weights as bytes: weight = byte − zero_point.

    Args:
        array: int8 with zero point 0, or uint8 with zero point 128, which no kernel multiplies in pairs of 16 bits.
        pair_sum: The largest absolute sum of two neighbouring products; None where no kernel adds them in 16 bits.
    """

    array: np.ndarray[Any, Any]
    pair_sum: int | None

    @property
    def zero_point(self) -> int:
        """What stands for weight 0."""
        return _SIGNED_ZERO if self.array.dtype == np.uint8 else 0

    @property
    def needs_vnni(self) -> bool:
        """Whether an x86 kernel without VNNI could saturate on it."""
        return self.pair_sum is not None and self.pair_sum > PAIR_LIMIT

    @property
    def reason(self) -> str:
        """Why it is stored as uint8; empty if it is not."""
        return WIDE_REASON if self.zero_point else ""


def store_weight(weight: Tensor, x: StoredTensor, target: Target, *, adds_pairs: bool = True) -> WeightBytes:
    """Store a weight as bytes: int8 where that is proven exact on every processor or asked for, else uint8.

    Args:
        weight: Integers within ±127, [out, in / groups, *kernel] or [out, in].
        x: What they are multiplied with.
        target: What the file is for.
        adds_pairs: Whether some kernel of the operator adds two products in 16 bits.
    """
    array = weight.to(torch.int8).numpy()
    if not adds_pairs:
        return WeightBytes(array, None)
    pair_sum = largest_pair_sum(weight, largest_byte(x))
    if pair_sum <= PAIR_LIMIT or target.saturates:
        return WeightBytes(array, pair_sum)
    return WeightBytes((array.astype(np.int16) + _SIGNED_ZERO).astype(np.uint8), None)


def write_bytes(w: NodeWriter, weight: Tensor, *, adds_pairs: bool) -> WeightBytes:
    """Store the weight that a node multiplies its first input with as bytes; the report of the node tells of them."""
    stored = store_weight(weight, w.x, w.target, adds_pairs=adds_pairs)
    w.note(needs_vnni=stored.needs_vnni, reason=stored.reason, pair_sum=stored.pair_sum)
    return stored


def is_dense(operator: Operator, weight: Tensor | None) -> bool:
    """Whether an output multiplies several inputs with trained weights, so that kernels may add pairs of products.

    The kernels of depthwise convolutions, averages and rescales add none.
    """
    return operator.has_weight and weight is not None and not operator.is_depthwise(weight)


def largest_byte(x: StoredTensor) -> int:
    """The largest absolute number that kernels multiply weights with, padding included."""
    return max(x.largest, -x.smallest, x.zero_point)
