"""Integer types: how many levels a quantised number has, and which."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ana_fx.numerics.codebook import Codebook, half_way
from ana_fx.text.wording import brief, unknown

__all__ = ["EXACT_FLOAT32", "LARGEST_LEVEL", "LARGEST_WEIGHT", "IntegerType"]

EXACT_FLOAT32 = 2**24  # up to here float32 holds every integer
LARGEST_LEVEL, LARGEST_WEIGHT = 255, 128  # of eight bits, in absolute value

_NAME = re.compile(r"(u?)int([1-9]\d*)")
_NAMES = ("bipolar", "ternary", *(f"int{bits}" for bits in range(2, 9)), *(f"uint{bits}" for bits in range(1, 9)))
_MOST_LEVELS = 16  # of a codebook: each costs a comparison


@dataclass(frozen=True)
class IntegerType:
    """Integers of one to eight bits: a range [qmin, qmax], or the levels of a codebook.

    `narrow` drops the lowest signed level, which makes the range symmetric: two narrow bits are
    the balanced ternary levels -1, 0, 1.

    `zero_point` is the unsigned number that stands for level 0 where that is not in the middle, as
    with images: the range is `[−zero_point, 2**bits − 1 − zero_point]`.

    `limit` cuts a narrow type to [−limit, limit]: weights of eight bits beyond ±63 can saturate in the kernels of
    some processors (see `ana_fx.numerics.pair_sums`).

    `levels` are those of a codebook, the K-quantizer of the paper (equation 1), and `thresholds` stand between them, in
    steps of the quantizer; by default half-way. One bit has the levels 0 and 1, or −1 and 1 if it is signed, and the
    threshold 0: the Heaviside and the sign function. Channels of an activation may have thresholds of their own, a row
    each; a level that a channel never takes lies between two that are equal, or beyond one that is infinite.

    Holds: 1 <= bits <= 8; an unsigned type is not narrow and has no zero point; a limit is of a narrow type, and less
    than its highest level; levels and thresholds rise, 2 to 16 of the first and one less of the second, and the type is
    the smallest that holds the levels.
    """

    bits: int
    signed: bool
    narrow: bool = False
    zero_point: int | None = None
    limit: int | None = None
    levels: tuple[int, ...] = ()
    thresholds: tuple[float | tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"an integer type has 1 to 8 bits, got {self.bits}")
        if self.bits == 1 and not self.levels:
            object.__setattr__(self, "levels", (-1, 1) if self.signed else (0, 1))
            object.__setattr__(self, "thresholds", self.thresholds or (0.0,))
        if self.levels or self.thresholds:
            self._check_codebook()
            return
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

    def _check_codebook(self) -> None:
        if self.narrow or self.zero_point is not None or self.limit is not None:
            raise ValueError("a codebook says all its levels: it is not narrow and has no zero point and no limit")
        levels = tuple(int(level) for level in self.levels)
        if not 2 <= len(levels) <= _MOST_LEVELS or any(low >= high for low, high in itertools.pairwise(levels)):
            raise ValueError(f"a codebook has 2 to {_MOST_LEVELS} levels that rise, got {brief(self.levels)}")
        thresholds = self._checked_thresholds(len(levels) - 1) or half_way(levels)
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "thresholds", thresholds)
        if self.bits != _bits_of(levels) or self.signed != (levels[0] < 0):
            raise ValueError(
                f"levels from {levels[0]} to {levels[-1]} are of {_bits_of(levels)} bits, at most 8, "
                f"{'signed' if levels[0] < 0 else 'unsigned'}, got {self.bits}; write IntegerType.of_levels(...)"
            )

    def _checked_thresholds(self, wanted: int) -> tuple[float, ...] | tuple[tuple[float, ...], ...]:
        """The thresholds as floats, once it is certain that they stand between levels."""
        given: Any = self.thresholds
        if not given:
            return ()
        is_shared = not isinstance(given[0], Sequence)
        rows = tuple(tuple(map(float, row)) for row in ([given] if is_shared else given))
        for index, row in enumerate(rows):
            rises = all(low < high or (low == high and not is_shared) for low, high in itertools.pairwise(row))
            is_number = all(not math.isnan(each) and (math.isfinite(each) or not is_shared) for each in row)
            if len(row) != wanted or not rises or not is_number:
                needed = "finite and rising" if is_shared else f"for each of {len(rows)} channels, none below another"
                raise ValueError(
                    f"{wanted + 1} levels have {wanted} thresholds between them, {needed}, got "
                    f"{', '.join(f'{each:g}' for each in row[:20])}{'' if is_shared else f' for channel {index}'}"
                )
        return rows[0] if is_shared else rows

    @classmethod
    def of_levels(
        cls,
        levels: Sequence[int] | Sequence[Sequence[int]],
        thresholds: Sequence[float] | Sequence[Sequence[float]] | None = None,
    ) -> IntegerType:
        """The type of a codebook: its levels, and the thresholds between them (paper, equation 1).

        Activations may have other levels, other thresholds or both for each channel: give a row each. The levels of all
        channels are 2 to 16 together.

        Args:
            levels: 2 to 16 integers that rise, within −128 … 127 or 0 … 255; or such a row for each channel.
            thresholds: One less, in steps of the quantizer; None for half-way between the levels; or a row for each
                channel.

        Raises:
            ValueError: Levels or thresholds are not as above.

        Examples:
            >>> five = IntegerType.of_levels([-4, -1, 0, 1, 4])
            >>> five.bits, five.thresholds
            (4, (-2.5, -0.5, 0.5, 2.5))
            >>> IntegerType.of_levels([[-1, 0, 1], [-4, 0, 4]]).levels
            (-4, -1, 0, 1, 4)
            >>> IntegerType.of_levels([0, 1, 2], [[0.5, 1.5], [0.7, 1.1]]).num_channels
            2
        """
        if levels and isinstance(levels[0], Sequence):
            return cls._of_rows([tuple(row) for row in levels], thresholds)  # type: ignore[arg-type]  # rows, then
        whole: tuple[int, ...] = tuple(levels)  # type: ignore[arg-type]  # no rows, then
        if not all(type(each) is int for each in whole) or len(whole) < 2:
            raise ValueError(f"a codebook has 2 to {_MOST_LEVELS} levels, which are integers, got {brief(levels)}")
        return cls(_bits_of(whole), min(whole) < 0, levels=whole, thresholds=tuple(thresholds or ()))  # type: ignore[arg-type]  # rows or not

    @classmethod
    def _of_rows(cls, levels: Sequence[tuple[int, ...]], thresholds: Any) -> IntegerType:
        """The type of all levels of all channels, where each channel passes over those that it has not."""
        given = [half_way(row) for row in levels] if thresholds is None else list(thresholds)
        if given and not isinstance(given[0], Sequence):
            given = [given] * len(levels)
        if len(given) != len(levels):
            raise ValueError(f"levels of {len(levels)} channels have as many rows of thresholds, got {len(given)}")
        own = [cls.of_levels(row, between) for row, between in zip(levels, given, strict=True)]
        union = sorted({level for each in own for level in each.levels})
        return cls.of_levels(union, [_passing_over(each, union) for each in own])

    @property
    def rows(self) -> tuple[tuple[float, ...], ...]:
        """The thresholds of each channel, or one row for all; none without a codebook."""
        if not self.levels:
            return ()
        return self.thresholds if self.num_channels is not None else (self.thresholds,)  # type: ignore[return-value]  # it tells

    @property
    def num_channels(self) -> int | None:
        """Of how many channels the thresholds are told one by one; None if all have the same."""
        return len(self.thresholds) if self.thresholds and isinstance(self.thresholds[0], tuple) else None

    @property
    def codebook(self) -> Codebook | None:
        """The levels and thresholds, if not all integers of the range are levels.

        Thresholds that each channel has for itself are float64, [channels].
        """
        if not self.levels:
            return None
        if self.num_channels is None:
            return Codebook(self.levels, self.rows[0])
        return Codebook(self.levels, torch.tensor(self.rows, dtype=torch.float64).unbind(1))

    @classmethod
    def parse(cls, name: str) -> IntegerType:
        """The type called `"bipolar"` (−1 and 1), `"uint1"` (0 and 1), `"ternary"`, `"int2"` … or `"uint2"` ….

        Examples:
            >>> IntegerType.parse("uint4").qmax
            15
        """
        if name in ("bipolar", "uint1"):
            return cls(bits=1, signed=name == "bipolar")
        if name == "ternary":
            return cls(bits=2, signed=True, narrow=True)
        match = _NAME.fullmatch(str(name))
        if match is None or not 2 <= int(match[2]) <= 8:
            raise ValueError(unknown("integer type", name, _NAMES))
        return cls(bits=int(match[2]), signed=not match[1])

    @property
    def qmin(self) -> int:
        """The lowest level."""
        if self.levels:
            return self.levels[0]
        if self.zero_point is not None:
            return -self.zero_point
        if self.limit is not None:
            return -self.limit
        return self.narrow - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The highest level."""
        if self.levels:
            return self.levels[-1]
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

        Examples:
            >>> str(IntegerType.parse("int8").within(64))
            'int8 within ±63'
        """
        if self.magnitude <= limit:
            return self
        if self.levels:
            raise ValueError(
                f"levels of weights lie within ±{limit} next to these inputs, so that no kernel saturates, got {self}; "
                f"use smaller levels, or target 'onnxruntime-vnni'"
            )
        return replace(self, narrow=True, limit=limit - (limit % 2 == 0))

    def __str__(self) -> str:
        if self.levels:
            return self._codebook_name()
        if self.limit is not None:
            return f"int{self.bits} within ±{self.limit}"
        if self.zero_point is not None:
            return f"uint{self.bits} - {self.zero_point}"
        if self.bits == 2 and self.narrow:
            return "ternary"
        return f"{'' if self.signed else 'u'}int{self.bits}"

    def _codebook_name(self) -> str:
        levels = f"levels {', '.join(map(str, self.levels))}"
        if self.bits == 1 and self.thresholds == (0.0,):
            return "bipolar" if self.signed else "uint1"
        if self.num_channels is not None:
            levels += f" with thresholds for each of {self.num_channels} channels"
        elif self.thresholds != half_way(self.levels):
            levels += f" with thresholds {', '.join(f'{each:g}' for each in self.thresholds)}"
        return levels


def _passing_over(own: IntegerType, union: Sequence[int]) -> list[float]:
    """The thresholds between all levels of a union that pass over those which a type has not."""
    reached = dict(zip(own.levels, (-math.inf, *own.thresholds), strict=True))
    found: list[Any] = []
    for level in union[1:]:
        next_own = min((each for each in own.levels if each >= level), default=None)
        found.append(math.inf if next_own is None else reached[next_own])
    return found


def _bits_of(levels: tuple[int, ...]) -> int:
    """The bits of the smallest type that holds these levels; one bit is 0 and 1, or −1 and 1."""
    if levels in ((0, 1), (-1, 1)):
        return 1
    low, high = min(levels), max(levels)
    return max(2, high.bit_length() if low >= 0 else 1 + max(high.bit_length(), (-low - 1).bit_length()))
