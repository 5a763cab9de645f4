"""Which form a graph of ours has, on its way from a model to a program."""

from __future__ import annotations

from enum import Enum

from torch import nn
from torch.fx import GraphModule

__all__ = ["GraphForm", "form_of", "is_prepared", "is_program", "set_form"]

_KEY = "form"  # of `GraphModule.meta`; no other file knows it


class GraphForm(Enum):
    """The forms, in the order in which passes lead from one to the next."""

    TRACED = "traced"
    """The modules and functions of the user's model."""
    CANONICAL = "canonical"
    """One spelling for each operation."""
    FUSED = "fused"
    """Layer maps on reals, and what only moves numbers."""
    QUANTIZED = "quantized"
    """Layer maps with quantizers, which are trained: what `prepare` returns."""
    PROGRAM = "program"
    """Integers between quantize and dequantize: what `convert` returns."""


def form_of(module: nn.Module) -> GraphForm | None:
    """The form of a graph that a pass of ours made; None for any other module."""
    form: GraphForm | None = getattr(module, "meta", {}).get(_KEY) if isinstance(module, GraphModule) else None
    return form


def set_form(gm: GraphModule, form: GraphForm) -> None:
    """Note the form that a graph has now."""
    gm.meta[_KEY] = form


def is_prepared(module: nn.Module) -> bool:
    """Whether `prepare` returned a module."""
    return form_of(module) is GraphForm.QUANTIZED


def is_program(module: nn.Module) -> bool:
    """Whether `convert` or `load` returned a module."""
    return form_of(module) is GraphForm.PROGRAM
