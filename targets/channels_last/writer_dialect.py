"""A table of writers, by the operator of a layer map or the type of a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.program.integer_layers import IntegerMap
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.upsamplings import Upsampling, upsamplings

__all__ = ["Write", "WriterDialect"]

Write = Callable[[Any, Any], HeldTensor]
"""From a `LayoutWriter` and what is written to the tensor that it gives."""


class WriterDialect(dict[type, Write]):
    """From the type of an operator or a module to what writes it."""

    def subject(self, module: nn.Module) -> Any:
        """What is written of a module: its operator, if it is a layer map."""
        return module.operator if isinstance(module, IntegerMap) else module

    def upsamplings(self, program: GraphModule) -> dict[Node, Upsampling]:
        """For the last of several nodes that it writes as one, what they compute."""
        return {node: each for node, each in upsamplings(program).items() if type(each.form) in self}

    def writer(self, module: nn.Module) -> Write | None:
        """What writes a module; None if the dialect does not have it."""
        return self.get(type(self.subject(module)))
