"""Removes modules that do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import calls_to
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_graph import CANONICAL

__all__ = ["DropIdentities"]


@dataclass(frozen=True)
class DropIdentities(Pass):
    """Remove `nn.Identity`.

    before   conv -> identity -> relu
    after    conv -> relu
    """

    name: ClassVar[str] = "drop-identities"
    requires: ClassVar[Dialect] = CANONICAL
    ensures: ClassVar[Dialect] = CANONICAL

    def run(self, gm: GraphModule) -> bool:
        identities = calls_to(gm, nn.Identity)
        for node in identities:
            node.replace_all_uses_with(node.all_input_nodes[0])
            gm.graph.erase_node(node)
        return bool(identities)
