"""Activations before max pools, so that they meet the layer whose output they clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.graph import calls_to, module_of
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import ACTIVATIONS, MAX_POOLS
from ana_fx.passes.canonical.canonical_graph import CANONICAL

__all__ = ["SwapPoolAndActivation"]


@dataclass(frozen=True)
class SwapPoolAndActivation(Pass):
    """Swap a max pool and the activation after it; both are monotone, so no number changes.

    before   conv -> max pool -> relu
    after    conv -> relu -> max pool
    """

    name: ClassVar[str] = "swap-pool-and-activation"
    requires: ClassVar[Dialect] = CANONICAL
    ensures: ClassVar[Dialect] = CANONICAL

    def run(self, gm: GraphModule) -> bool:
        swapped = [_swap(node) for node in calls_to(gm, *ACTIVATIONS)]
        return any(swapped)


def _swap(activation: Node) -> bool:
    pool = activation.all_input_nodes[0]
    if not isinstance(module_of(pool), MAX_POOLS) or len(pool.users) != 1:
        return False
    source = pool.all_input_nodes[0]
    activation.replace_all_uses_with(pool)
    pool.args = (activation,)
    activation.args = (source,)
    pool.prepend(activation)
    return True
