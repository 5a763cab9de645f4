"""The map that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ana_fx.operators.base_operator import Operator

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity(Operator):
    """Nothing: a batch norm, an activation or a change of scale that stands alone."""

    kind = "identity"
    has_headroom = True
    has_float_form = True

    @property
    def keeps_sign(self) -> bool:
        """Nothing changes."""
        return True

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The input itself."""
        return inputs[0]
