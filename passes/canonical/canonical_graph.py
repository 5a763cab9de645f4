"""The dialect with one spelling for each operation."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from ana_fx.graph import constant_nodes, module_of
from ana_fx.operators.operator_list import function_spellings
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.canonical.canonical_dialect import is_movement, is_shape, line_of, unsupported_reason
from ana_fx.prepared.graph_form import GraphForm

__all__ = ["CANONICAL", "Canonical"]

_BORDERS = ("placeholder", "get_attr", "output")


class Canonical(Dialect):
    """Modules with an integer form, a few functions of tensors, data movement, and sizes.

    Whatever is computed from parameters and buffers alone may be spelt in any way.
    """

    form = GraphForm.CANONICAL

    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """Every other node, with the reason."""
        constants = constant_nodes(gm)
        for node in gm.graph.nodes:
            if node not in constants and (reason := _reason(node)) is not None:
                yield node, reason


CANONICAL = Canonical()


def _reason(node: Node) -> str | None:
    if node.op in _BORDERS or is_shape(node):
        return None
    if node.op == "call_module":
        module = module_of(node)
        return "it works in place" if getattr(module, "inplace", False) else unsupported_reason(module)
    is_function = node.op == "call_function" and (node.target in function_spellings() or line_of(node) is not None)
    return None if is_function or is_movement(node) else f"{node.target} is no canonical spelling"
