"""The formulas from accumulators to levels."""

from __future__ import annotations

from enum import Enum

__all__ = ["Requantizer"]


class Requantizer(Enum):
    """The formula from accumulators to levels that a target computes."""

    QLINEAR = "qlinear"
    """clip(rint(float32(acc + bias) · slope)): ONNX's QLinear operators."""
    SHIFT = "shift"
    """clip((multiplier · acc + offset) >> shift): integer arithmetic."""
