"""A model without what is wrapped around it to train or to compile it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ana_fx.errors import TraceError, listing
from ana_fx.prepared.recognize import unwrap

__all__ = ["unwrapped_copy"]


def unwrapped_copy(model: nn.Module, notes: list[str]) -> nn.Module:
    """Return a deep copy of a model in which no module is wrapped; `notes` gets a line for each wrapper inside it."""
    scripted = [path for path, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        lines = [f"module {path!r}" if path else type(model).__name__ for path in scripted]
        raise TraceError(listing("compiled by torch.jit:", lines, "use the Python modules that they were made from"))
    bare = {id(module): unwrap(module) for module in model.modules()}
    wrappers = [module for module in model.modules() if bare[id(module)] is not module]
    notes.extend(f"{type(wrapper).__name__} was taken off inside the model" for wrapper in wrappers)
    memo: dict[int, Any] = {}
    for wrapper in reversed(wrappers):  # the inner ones first
        memo[id(wrapper)] = copy.deepcopy(bare[id(wrapper)], memo)
    copied: nn.Module = copy.deepcopy(model, memo)
    return copied
