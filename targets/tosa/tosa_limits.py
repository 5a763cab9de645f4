"""What of a program cannot be written although the target's description can hold it."""

from __future__ import annotations

from torch.fx import Node

__all__ = ["misfits_of"]


def misfits_of(node: Node) -> list[str]:
    """Say why a node cannot be written, a reason for each, with its place."""
    return []
