"""Where the thresholds of a quantizer stand."""

from __future__ import annotations

from enum import Enum

__all__ = ["Rounding"]


class Rounding(str, Enum):
    """Where the threshold of a level stands: half a step below it, or at it (the paper's text)."""

    NEAREST = "nearest"
    FLOOR = "floor"

    @property
    def offset(self) -> float:
        """How far below its level a threshold stands, in steps."""
        return 0.5 if self is Rounding.NEAREST else 0.0
