"""What a layer map's weight becomes before it runs, where that is computed for all layers at once.

It is for the next call alone, in training, and only as long as nobody writes the weight; a copy computes its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Handed"]


class _HandedWeight(NamedTuple):
    """A quantised weight, and what it was quantised from."""

    quantized: Tensor
    weight: Tensor
    version: int


class Handed:
    """What was handed to a layer map."""

    def __init__(self) -> None:
        self._weight: _HandedWeight | None = None

    def hand_weight(self, quantized: Tensor, weight: Tensor) -> None:
        """A weight, quantised already."""
        self._weight = _HandedWeight(quantized, weight, weight._version)

    def take_weight(self, weight: Tensor) -> Tensor | None:
        """What was made of this weight as it is, if anything."""
        handed, self._weight = self._weight, None
        if handed is None or handed.weight is not weight or handed.version != weight._version:
            return None
        return handed.quantized

    def __deepcopy__(self, memo: dict[int, Any]) -> Handed:
        """Nothing was handed to a copy."""
        return Handed()
