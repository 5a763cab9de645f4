"""What a layer map's parameters become before it runs, where that is computed for all layers at once.

It is for the next call alone, in training, and only as long as nobody writes the parameters; a copy computes its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ana_fx.layers.scale_by_norm import NormsParameters

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
        self._norm: NormsParameters | None = None
        self._norms_versions = (0, 0)

    def hand_weight(self, quantized: Tensor, weight: Tensor) -> None:
        """A weight, quantised already."""
        self._weight = _HandedWeight(quantized, weight, weight._version)

    def hand_norm(self, parameters: NormsParameters) -> None:
        """The parameters of its batch norm, whose gradients tell that of a scale."""
        self._norm, self._norms_versions = parameters, _versions(parameters)

    def take_weight(self, weight: Tensor) -> Tensor | None:
        """What was made of this weight as it is, if anything."""
        handed, self._weight = self._weight, None
        if handed is None or handed.weight is not weight or handed.version != weight._version:
            return None
        return handed.quantized

    def take_norm(self) -> NormsParameters | None:
        """The parameters of its batch norm, if they were handed and are as they were."""
        handed, self._norm = self._norm, None
        return handed if handed is not None and self._norms_versions == _versions(handed) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Handed:
        """Nothing was handed to a copy."""
        return Handed()


def _versions(parameters: NormsParameters) -> tuple[int, int]:
    return parameters.weight._version, parameters.bias._version
