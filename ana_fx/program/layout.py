"""Where the batch lies in a tensor of the user's graph, and how the program holds it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BATCH", "Layout"]

BATCH = 2  # samples in the batch that operations are run on


@dataclass(frozen=True)
class Layout:
    """How a tensor of the user's graph lies in the program: batch axis first.

    Args:
        shape: The user's tensor for a batch of BATCH samples.
        batch_axis: Which axis carries the batch, sample after sample if it carries more than that; the
            program has it in front. None for a constant, which the program repeats for each sample.

    Holds: the batch axis exists and its length is a multiple of BATCH.
    """

    shape: tuple[int, ...]
    batch_axis: int | None

    def __post_init__(self) -> None:
        if self.batch_axis is None:
            return
        if not 0 <= self.batch_axis < len(self.shape):
            raise ValueError(f"found batch axis {self.batch_axis}, needed one of the axes of {self.shape}")
        length = self.shape[self.batch_axis]
        if length == 0 or length % BATCH:
            raise ValueError(f"found a batch axis of length {length}, needed a multiple of {BATCH}")

    @property
    def rows(self) -> int:
        """Rows of the program's tensor in a sample: more than one where windows or heads joined the batch."""
        return 1 if self.batch_axis is None else self.shape[self.batch_axis] // BATCH

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row: that of the program's tensor without its leading axis."""
        if self.batch_axis is None:
            return self.shape
        return self.shape[: self.batch_axis] + self.shape[self.batch_axis + 1 :]

    def part(self, parts: int) -> tuple[int, ...]:
        """The shape of one of so many equal parts of the batch."""
        rows = BATCH * self.rows // parts
        return self.row if rows == 1 else (rows, *self.row)

    def user(self, x: Tensor) -> Tensor:
        """The user's tensor from that of the program."""
        x = x[0] if self.batch_axis is None else x.movedim(0, self.batch_axis)
        return x.clone(memory_format=torch.contiguous_format)
