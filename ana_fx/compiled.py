"""What torch.compile makes of a prepared model, and how many compilations it allows."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

__all__ = ["renew_code", "uncompiled"]


def uncompiled(model: Any) -> Any:
    """The model that `torch.compile` was given, which shares everything with what it returned; others as they are."""
    # by name: to ask the class would import the whole compiler
    while type(model).__name__ == "OptimizedModule" and type(model).__module__.startswith("torch."):
        model = model._orig_mod
    return model


def renew_code(gm: GraphModule) -> None:
    """Let torch.compile count the compilations of a model anew.

    It allows eight of each code object and then goes on without compiling; an annealed training needs one for each
    stage. What was compiled for the stages that are over goes with the old code object.
    """
    forward = type(gm).forward  # each GraphModule has a class, and so a function, of its own
    forward.__code__ = forward.__code__.replace()
