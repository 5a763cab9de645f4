"""Integer types: how many levels a quantised number has, and which."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch

from ana_fx.text.wording import unknown

__all__ = ["EXACT_FLOAT32", "LARGEST_LEVEL", "LARGEST_WEIGHT", "IntegerType"]

EXACT_FLOAT32 = 2**24  # up to here float32 holds every integer
LARGEST_LEVEL, LARGEST_WEIGHT = 255, 128  # of eight bits, in absolute value

_NAME = re.compile(r"(u?)int([1-9]\d*)")
_NAMES = ("ternary", *(f"int{bits}" for bits in range(2, 9)), *(f"uint{bits}" for bits in range(2, 9)))


@dataclass(frozen=True)
class IntegerType:
    """A range of integers [qmin, qmax] of two to eight bits.

    `narrow` drops the lowest signed level, which makes the range symmetric: two narrow bits are
    the balanced ternary levels -1, 0, 1.

    `zero_point` is the unsigned number that stands for level 0 where that is not in the middle, as
    with images: the range is [−zero_point, 2**bits − 1 − zero_point].

    `limit` cuts a narrow type to [−limit, limit]: weights of eight bits beyond ±63 can saturate in the kernels of
    some processors (see `ana_fx.numerics.pair_sums`).

    Holds: 2 <= bits <= 8; an unsigned type is not narrow and has no zero point; a limit is of a narrow type, and less
    than its highest level.
    """

    bits: int
    signed: bool
    narrow: bool = False
    zero_point: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"an integer type has 2 to 8 bits, got {self.bits}")
        if self.narrow and not self.signed:
            raise ValueError("only a signed integer type can be narrow")
        highest = (1 << (self.bits - 1)) - 1
        if self.limit is not None and not (self.narrow and 0 < self.limit < highest):
            raise ValueError(f"a limit is of a narrow type, in [1, {highest - 1}], got {self.limit}")
        if self.zero_point is None:
            return
        if not self.signed or self.narrow or not 0 < self.zero_point < 1 << self.bits:
            raise ValueError(
                f"a zero point is of a signed type that is not narrow, in [1, {(1 << self.bits) - 1}], "
                f"got {self.zero_point}"
            )

    @classmethod
    def parse(cls, name: str) -> IntegerType:
        """The type called `"ternary"`, `"int2"` … `"int8"` or `"uint2"` … `"uint8"`.

        >>> IntegerType.parse("uint4").qmax
        15
        """
        if name == "ternary":
            return cls(bits=2, signed=True, narrow=True)
        match = _NAME.fullmatch(str(name))
        if match is None or not 2 <= int(match[2]) <= 8:
            raise ValueError(unknown("integer type", name, _NAMES))
        return cls(bits=int(match[2]), signed=not match[1])

    @property
    def qmin(self) -> int:
        """The lowest level."""
        if self.zero_point is not None:
            return -self.zero_point
        if self.limit is not None:
            return -self.limit
        return self.narrow - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The highest level."""
        if self.zero_point is not None:
            return (1 << self.bits) - 1 - self.zero_point
        if self.limit is not None:
            return self.limit
        return (1 << (self.bits - self.signed)) - 1

    @property
    def magnitude(self) -> int:
        """The largest absolute value of a level."""
        return max(-self.qmin, self.qmax)

    @property
    def dtype(self) -> torch.dtype:
        """The smallest torch type that holds every level."""
        if self.zero_point is not None:
            return torch.int16
        return torch.int8 if self.signed else torch.uint8

    def within(self, limit: int) -> IntegerType:
        """The same type if no level exceeds `limit` in absolute value, else cut at the odd number below.

        An odd cut keeps seven bits to what seven narrow bits hold: ±63 where ±64 would do.

        >>> str(IntegerType.parse("int8").within(64))
        'int8 within ±63'
        """
        if self.magnitude <= limit:
            return self
        return replace(self, narrow=True, limit=limit - (limit % 2 == 0))

    def __str__(self) -> str:
        if self.limit is not None:
            return f"int{self.bits} within ±{self.limit}"
        if self.zero_point is not None:
            return f"uint{self.bits} - {self.zero_point}"
        if self.bits == 2 and self.narrow:
            return "ternary"
        return f"{'' if self.signed else 'u'}int{self.bits}"
