"""Nothing is left of modules that do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import calls_to
from ana_fx.passes.base_pass import Pass

__all__ = ["DropIdentities"]


@dataclass(frozen=True)
class DropIdentities(Pass):
    """Remove `nn.Identity`.

    before   conv -> identity -> relu
    after    conv -> relu
    """

    name: ClassVar[str] = "drop-identities"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        identities = calls_to(gm, nn.Identity)
        for node in identities:
            node.replace_all_uses_with(node.all_input_nodes[0])
            gm.graph.erase_node(node)
        return bool(identities)
