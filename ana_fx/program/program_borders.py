"""The borders of a lowered program: from reals to levels, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.tensor_spec import LevelRange

__all__ = ["Dequantize", "Quantize", "QuantizeFloat", "QuantizeImage"]


class Quantize(Float32Module):
    """Border into the program: clip(rint(x / scale), qmin, qmax), as ONNX's QuantizeLinear; NaN is the lowest level.

    Args:
        scale: The real value of one level.
        integer_type: The levels.
        sample_shape: The shape of a sample for which the program was proven; None takes any.

    Raises:
        ValueError: An input's samples have another shape.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, integer_type: IntegerType, sample_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.integer_type = integer_type
        self.sample_shape = sample_shape
        self.register_buffer("scale", scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Reals to levels."""
        self._check_shape(x)
        levels = torch.round(x.float() / self.scale).nan_to_num(nan=float(self.integer_type.qmin))
        return levels.clamp(self.integer_type.qmin, self.integer_type.qmax).to(self.integer_type.dtype)

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.integer_type.qmin, self.integer_type.qmax, self.scale)

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"{self.integer_type}, scale={float(self.scale):.4g}"

    def _check_shape(self, x: Tensor) -> None:
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch leaves it untyped
        if self.sample_shape is None or is_traced:  # to torch.jit sizes are tensors
            return
        if tuple(x.shape[1:]) != self.sample_shape:
            raise ValueError(
                f"found an input of shape {tuple(x.shape)}, needed [N, {', '.join(map(str, self.sample_shape))}]: the "
                f"program was proven for samples of this shape; for another, prepare and convert with one"
            )

    def real(self, levels: Tensor) -> Tensor:
        """Inputs that have these levels."""
        return levels * self.scale


class QuantizeFloat(Quantize):
    """Border back into the integers, behind a float layer."""


class QuantizeImage(Quantize):
    """Border into the program: clip(rint(gain · x + shift), 0, 255) − zero point of the type.

    `gain` and `shift` are [channels, 1, 1] or [1, 1, 1].
    """

    gain: Tensor
    shift: Tensor

    def __init__(
        self,
        scale: Tensor,
        integer_type: IntegerType,
        gain: Tensor,
        shift: Tensor,
        sample_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(scale, integer_type, sample_shape)
        self.register_buffer("gain", gain.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to levels."""
        self._check_shape(x)
        pixels = torch.round(x.float() * self.gain + self.shift).nan_to_num(nan=0.0).clamp(0, 255)
        return (pixels + self.integer_type.qmin).to(self.integer_type.dtype)

    def real(self, levels: Tensor) -> Tensor:
        """Inputs that have these levels."""
        return (levels - self.integer_type.qmin - self.shift) / self.gain


class Dequantize(Float32Module):
    """Border out of the program: float32(n) · scale, as ONNX's DequantizeLinear."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())

    def extra_repr(self) -> str:
        """What `print(program)` shows."""
        return f"scale={float(self.scale):.4g}"

    def forward(self, n: Tensor) -> Tensor:
        """Levels or logits to reals."""
        return n.to(torch.float32) * self.scale
