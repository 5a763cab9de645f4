"""How one layer map stands in a file."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    name: str
    operator: str
    arithmetic: str
    needs_vnni: bool = False
    reason: str = ""
    pair_sum: int | None = None
