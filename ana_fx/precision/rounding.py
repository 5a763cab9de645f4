"""Where the thresholds of a quantizer stand."""

from __future__ import annotations

from enum import Enum

__all__ = ["Rounding"]


class Rounding(str, Enum):
    """Where the threshold of a level stands: half a step below it, or at it (the paper's text)."""

    NEAREST = "nearest"
    """Half a step below its level: numbers are rounded to the nearest one. The default."""
    FLOOR = "floor"
    """At its level: numbers are rounded down, as in the paper's text."""

    @property
    def offset(self) -> float:
        """How far below its level a threshold stands, in steps."""
        return 0.5 if self is Rounding.NEAREST else 0.0
