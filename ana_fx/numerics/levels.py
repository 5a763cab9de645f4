"""The levels of a quantizer, and where its thresholds stand between them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Levels"]


class Levels(NamedTuple):
    """The levels lo … hi of a quantizer and the distance of a threshold below its level."""

    lo: int | Tensor
    hi: int | Tensor
    offset: float
