"""Activations before max pools, so that they meet the layer whose output they clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.graph import calls_to, module_of
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import ACTIVATIONS, MAX_POOLS

__all__ = ["HoistActivations"]


@dataclass(frozen=True)
class HoistActivations(Pass):
    """Swap a max pool and the activation after it; both are monotone, so no number changes.

    before   conv -> max pool -> relu
    after    conv -> relu -> max pool
    """

    name: ClassVar[str] = "hoist-activations"

    def run(self, gm: GraphModule) -> bool:
        """See the class."""
        hoisted = [_hoist(node) for node in calls_to(gm, *ACTIVATIONS)]
        return any(hoisted)


def _hoist(activation: Node) -> bool:
    pool = activation.all_input_nodes[0]
    if not isinstance(module_of(pool), MAX_POOLS) or len(pool.users) != 1:
        return False
    source = pool.all_input_nodes[0]
    activation.replace_all_uses_with(pool)
    pool.args = (activation,)
    activation.args = (source,)
    pool.prepend(activation)
    return True
