"""What is known of each tensor of a program: how it lies, and which integers it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.layout import Layout

__all__ = [
    "LARGEST_LOGIT",
    "LevelRange",
    "TensorSpec",
    "has_spec",
    "integer_type_of",
    "sample_shape_of",
    "set_spec",
    "spec_of",
]

LARGEST_LOGIT = 2**31 - 1
_KEY = "tensor"  # of `Node.meta`; no other file knows it


@dataclass(frozen=True)
class LevelRange:
    """Which integers a tensor holds: their type, their range, and the real value of one.

    Args:
        integer_type: The type of the quantizer that they come from; None for logits, which are int32.
        lo: No number is below it.
        hi: No number is above it.
        scale: The real value of level 1, float32.

    Holds: lo <= 0 <= hi. Level 0 stands beside every tensor, whatever its own numbers: padding puts it there, and so
    do the zeros of a transposed convolution; and a partial sum is one in which the other numbers are 0.
    """

    integer_type: IntegerType | None
    lo: int
    hi: int
    scale: Tensor

    def __post_init__(self) -> None:
        if not self.lo <= 0 <= self.hi:
            raise ValueError(f"a range of levels holds 0, got [{self.lo}, {self.hi}]")

    @classmethod
    def of_logits(cls, scale: Tensor) -> LevelRange:
        """The range of a last layer's accumulators, which lowering holds within 32 bits."""
        return cls(None, -LARGEST_LOGIT, LARGEST_LOGIT, scale)

    @classmethod
    def union(cls, ranges: Sequence[LevelRange]) -> LevelRange:
        """The range of several that have one scale."""
        first = ranges[0]
        if not all(torch.equal(each.scale, first.scale) for each in ranges):
            scales = ", ".join(f"{float(each.scale):g}" for each in ranges)
            raise ValueError(f"what is joined has one scale, got {scales}")
        return cls(first.integer_type, min(each.lo for each in ranges), max(each.hi for each in ranges), first.scale)


@dataclass(frozen=True)
class TensorSpec:
    """What is known of the tensor that a node of a program gives.

    Args:
        layout: How the user's tensor lies in the program.
        levels: Which integers it holds; None if it holds reals.
    """

    layout: Layout
    levels: LevelRange | None = None


def spec_of(node: Node) -> TensorSpec:
    """What is known of the tensor that a node gives.

    Raises:
        KeyError: Nothing is, so the node is not part of a program, or was put into one by other hands.
    """
    try:
        spec: TensorSpec = node.meta[_KEY]
    except KeyError:
        raise KeyError(f"node {node.name!r} has no TensorSpec, needed a node of a program from convert()") from None
    return spec


def set_spec(node: Node, spec: TensorSpec) -> None:
    """Note what is known of the tensor that a node gives."""
    node.meta[_KEY] = spec


def has_spec(node: Node) -> bool:
    """Whether something is known of the tensor that a node gives."""
    return _KEY in node.meta


def sample_shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a program's tensor without its leading batch axis; that of a constant, which has none, is whole."""
    return spec_of(node).layout.row


def integer_type_of(node: Node) -> IntegerType | None:
    """The type of the levels that a node gives; None for logits and reals."""
    levels = spec_of(node).levels
    return None if levels is None else levels.integer_type
