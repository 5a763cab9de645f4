"""Layer maps that are one function of one tensor, without weights."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from ana_fx.layers.layer_map import LayerMap, Phase
from ana_fx.layers.recompute import recomputed, recomputes

__all__ = ["FunctionMap"]


class FunctionMap(LayerMap):
    """A function, then a quantizer. It reads bytes: few levels would leave little of a function.

    `reads_levels` says whether its input is levels even while there is noise.
    """

    reads_bytes = True
    reads_levels = False

    def set_reads_levels(self, reads_levels: bool) -> None:
        """Say whether its input is levels even while there is noise."""
        self.reads_levels = reads_levels

    @abstractmethod
    def of_reals(self, x: Tensor) -> Tensor:
        """The function."""

    @property
    def can_recompute(self) -> bool:
        """Whether the function has no parameters, draws no numbers and writes into nothing."""
        return False

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The function, quantised."""
        return self._quantized(self.of_reals(tensors[0]))

    def forward(self, *operands: Tensor) -> Tensor:
        """As every layer map. A step that learns keeps the levels that it reads."""
        quantizer = self.output_quantizer
        if (
            self.training
            and self.phase is Phase.LEARNING
            and quantizer is not None
            and self.reads_levels
            and len(operands) == 2
            and recomputes(operands[0], self.input_types[0])
            and self.can_recompute
        ):
            x, scale = operands
            return self._anchored(self._quantized(recomputed(self.of_reals, x, scale, self.input_types[0])))
        return super().forward(*operands)

    def _quantized(self, y: Tensor) -> Tensor:
        return y if self.output_quantizer is None else self.output_quantizer(y)
