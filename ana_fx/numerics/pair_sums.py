"""Sums of two neighbouring products, which some kernels add in 16 bits.

On x86 processors without VNNI (AMD before Zen 4, Intel before Cascade Lake) the instruction `vpmaddubsw` multiplies
unsigned by signed bytes, and adds the products of two neighbours in 16 bits; a sum beyond them saturates, and the
accumulator is wrong. Arm's NEON without dot product adds two products of signed bytes in 16 bits, which only
(−128) · (−128) twice can leave. So a product is the same on every processor if no such sum leaves 16 bits, whatever
the input, and no weight is −128.

Kernels store the weights of one output behind each other and pair the first with the second, the third with the
fourth, and so on. Convolutions go through the positions of the kernel and at each through the channels, matrix
products through the weights as ONNX stores them; both orders are looked at here. Unsigned by unsigned bytes, and the
kernels of depthwise convolutions, add no pairs. Measured with onnxruntime 1.22 to 1.32 (`docs/processors.md`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PAIR_LIMIT", "largest_pair_sum", "largest_safe_weight"]

PAIR_LIMIT = 2**15 - 1


def largest_safe_weight(largest_input: int) -> int:
    """The largest absolute value of weights two of which no pair of inputs makes leave 16 bits.

    Args:
        largest_input: The largest byte that a kernel multiplies weights with.

    >>> largest_safe_weight(255)
    64
    """
    return PAIR_LIMIT // (2 * largest_input)


def largest_pair_sum(weight: Tensor, largest_input: int) -> int:
    """The largest absolute sum of two neighbouring products that bytes from 0 to `largest_input` give.

    Args:
        weight: Integers, [out, in / groups, *kernel] or [out, in].
        largest_input: The largest byte that a kernel multiplies them with.
    """
    whole = weight.to(torch.int32)
    return largest_input * max(_heaviest_pair(rows) for rows in (whole.flatten(1), whole.movedim(1, -1).flatten(1)))


def _heaviest_pair(rows: Tensor) -> int:
    """The largest sum of the weights of one sign in two neighbours, [rows, weights]."""
    even = F.pad(rows, (0, rows.shape[1] % 2))
    first, second = even[:, ::2], even[:, 1::2]  # sums over an axis of two take twice as long as sums of two tensors
    positive = first.clamp_min(0).add_(second.clamp_min(0))
    negative = first.clamp_max(0).add_(second.clamp_max(0))
    return max(int(positive.max()), -int(negative.min()))
