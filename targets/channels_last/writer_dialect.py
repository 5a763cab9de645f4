"""A table of writers, by the operator of a layer map or the type of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import location
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.target import Target
from ana_fx.targets.channels_last.held_tensor import HeldTensor
from ana_fx.targets.channels_last.layout_limits import Limit, layout_reasons
from ana_fx.targets.channels_last.upsamplings import Upsampling, upsamplings

__all__ = ["Write", "WriterDialect"]

Write = Callable[[Any, Any], HeldTensor]
"""From a `LayoutWriter` and what is written to the tensor that it gives."""


class WriterDialect(dict[type, Write]):
    """The writers of a dialect, by the type of an operator or a module.

    Args:
        writers: The writers.
        limits: By the same types, the functions that say why kernels cannot compute a node.
    """

    def __init__(self, writers: Mapping[type, Write], limits: Mapping[type, Limit]) -> None:
        super().__init__(writers)
        self.limits = limits

    def subject(self, module: nn.Module) -> Any:
        """The object by whose type a module is written: the operator of an integer map, else the module itself."""
        return module.operator if isinstance(module, IntegerMap) else module

    def upsamplings(self, program: GraphModule) -> dict[Node, Upsampling]:
        """The groups of nodes that it writes as one operator, by the last node of each."""
        return {node: each for node, each in upsamplings(program).items() if type(each.form) in self}

    def writer(self, module: nn.Module) -> Write | None:
        """The writer of a module; None if the dialect has none."""
        return self.get(type(self.subject(module)))

    def misfits(self, node: Node, module: nn.Module, target: Target) -> list[str]:
        """Say why a node that calls a module cannot be written, a line for each reason."""
        subject = self.subject(module)
        kind = type(subject)
        if kind not in self:
            reasons = [f"target {target.name!r} has no writer for {kind.__name__}, needed one in its table"]
        elif kind not in self.limits:
            reasons = [f"target {target.name!r} has no limits for {kind.__name__}, needed them beside its writer"]
        else:
            reasons = [*layout_reasons(node), *self.limits[kind](node, subject, target)]
        return [f"{location(node)}: {reason}" for reason in reasons]
