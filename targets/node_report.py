"""How one layer map stands in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from ana_fx.program.weight_sizes import weight_size

__all__ = ["NodeReport"]


@dataclass(frozen=True)
class NodeReport:
    """How one layer map stands in a file.

    Args:
        name: Module path.
        operator: The operator that computes it.
        arithmetic: Type of the requantisation arithmetic.
        needs_vnni: Whether an x86 kernel without VNNI could saturate on it.
        reason: Why this operator, where a faster one was not proven equal.
        pair_sum: The largest absolute sum of two neighbouring products that its inputs can give, where some kernel
            adds these in 16 bits; None where none does. At most 32,767, unless it needs VNNI.
        num_weights: Its trained weights.
        weight_bits: The fewest bits that hold each of them, 32 in floats; None without any.
        weight_bytes: Their bytes in the file.
    """

    name: str
    operator: str
    arithmetic: str
    needs_vnni: bool = False
    reason: str = ""
    pair_sum: int | None = None
    num_weights: int = 0
    weight_bits: int | None = None
    weight_bytes: int = 0

    def with_weights(self, module: nn.Module, stored_bytes: Mapping[str, int]) -> NodeReport:
        """The same with the weights of its module.

        Args:
            module: The module that was written.
            stored_bytes: Bytes of each constant that was written for it; that of the weights is called "weight".
        """
        size = weight_size(module)
        if not size.number:
            return self
        stored = stored_bytes.get("weight", 0)
        return replace(self, num_weights=size.number, weight_bits=size.bits, weight_bytes=stored)
