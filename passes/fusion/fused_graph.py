"""The dialect of layer maps on reals."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from ana_fx.graph import constant_nodes, layer_map_of, module_of
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.canonical.canonical_dialect import is_shape, passes_levels
from ana_fx.prepared.graph_form import GraphForm

__all__ = ["FUSED", "Fused"]

_BORDERS = ("placeholder", "output")


class Fused(Dialect):
    """Layer maps without quantizers, what hands on levels as they are, sizes, and what is computed from constants."""

    form = GraphForm.FUSED

    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """Every other node, with the reason."""
        constants = constant_nodes(gm)
        for node in gm.graph.nodes:
            module, layer_map = module_of(node), layer_map_of(node)
            if layer_map is not None:
                if layer_map.is_quantized:
                    yield node, "its layer map has quantizers already"
            elif node.op not in _BORDERS and node not in constants and not (is_shape(node) or passes_levels(node)):
                yield node, f"{type(module).__name__ if module else node.target} is no layer map"


FUSED = Fused()
