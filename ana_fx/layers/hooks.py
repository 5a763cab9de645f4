"""Whether a module's call does more than its forward."""

from __future__ import annotations

from torch import nn

__all__ = ["is_hooked"]


def is_hooked(module: nn.Module) -> bool:
    """Whether the user's hooks belong to its call, so that nothing else may compute in its place."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
