"""How many compilations torch.compile allows a prepared model."""

from __future__ import annotations

from torch.fx import GraphModule

__all__ = ["renew_code"]


def renew_code(gm: GraphModule) -> None:
    """Let torch.compile count the compilations of a model anew.

    It allows eight of each code object and then goes on without compiling; an annealed training needs one for each
    stage. What was compiled for the stages that are over goes with the old code object.
    """
    forward = type(gm).forward  # each GraphModule has a class, and so a function, of its own
    forward.__code__ = forward.__code__.replace()
