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
    XNNPACK = "xnnpack"
    """The formula of QLINEAR in the kernels of XNNPACK, whose slopes lie below 256."""
    Q31 = "q31"
    """A product with 31 bits, halved 31 times half up, then a shift that rounds half away from zero: TFLite Micro."""
    Q31_HALF_UP = "q31 half up"
    """The same with a shift that rounds half up: LiteRT's built-in kernels."""
    SINGLE_ROUNDING = "single rounding"
    """The same product and one shift for both, half up: CMSIS-NN and TFLite where they are built so, TOSA."""
    EVERY_TFLITE = "every tflite"
    """That of XNNPACK, with numbers for which the three others give the same levels."""
