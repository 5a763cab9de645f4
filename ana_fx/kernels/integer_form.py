"""What an operator map deploys, and the kernel that computes it fast on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ana_fx.kernels.int8_levels import Finish
from ana_fx.operators.coefficients import Coefficients
from ana_fx.requantizers.staircase import Staircase
from ana_fx.requantizers.threshold_staircase import ThresholdStaircase

__all__ = ["FastKernel", "IntegerForm"]


class FastKernel(Protocol):
    """Computes the accumulators of a form from reals, or all of it where its staircase can follow at once."""

    @property
    def finish(self) -> Finish | object | None:
        """The staircase, if it follows at once."""

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether tensors of this layout are what it computes on."""

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Int32 accumulators, or reals if it has the staircase."""


@dataclass(frozen=True)
class IntegerForm:
    """What an operator map deploys: integer coefficients, then a staircase or raw logits.

    Args:
        coefficients: What its accumulators are computed with; a weight has the signs of its channels folded in.
        sign: The sign of each channel's accumulator where no weight could take it, float32, [channels].
        bound: No accumulator exceeds this in absolute value, whatever the weights; once these are fixed, with them.
        output_scale: The real value of one unit of the output, float32.
        staircase: From accumulators to levels; None for a head, whose output is factor · acc + bias.
        factor: Head-room of a head.
        bias: Bias of a head, int32, [channels].
        kernel: What computes all or most of it on a GPU.
    """

    coefficients: Coefficients
    sign: Tensor | None
    bound: int
    output_scale: Tensor
    staircase: Staircase | ThresholdStaircase | None = None
    factor: int = 1
    bias: Tensor | None = None
    kernel: FastKernel | None = None

    @property
    def weight(self) -> Tensor | None:
        """The integers of the coefficients."""
        return self.coefficients.integers
