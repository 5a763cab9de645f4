"""Runs graphs node by node: to see what each node gives, or to compute some nodes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

__all__ = ["Evaluator", "NodeByNode"]


class NodeByNode(Interpreter):
    """Runs a whole graph, and shows what each node gives.

    Args:
        gm: The graph.
        see: Is called with each node and what it gave.
    """

    def __init__(self, gm: GraphModule, see: Callable[[Node, Any], None]) -> None:
        super().__init__(gm)
        self.extra_traceback = False  # callers say themselves where an error arose
        self.current: Node | None = None  # the node that runs, or ran last
        self._see = see

    def run_node(self, n: Node) -> Any:
        """Run a node, and show what it gave."""
        self.current = n
        result = super().run_node(n)
        self._see(n, result)
        return result


class Evaluator(Interpreter):
    """Computes single nodes, and the nodes that these read.

    Args:
        gm: The graph.
        values: What some nodes give; these are not computed.
    """

    def __init__(self, gm: GraphModule, values: Mapping[Node, Any] | None = None) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self._values = {} if values is None else values

    @torch.no_grad()
    def of(self, node: Node) -> Any:
        """Compute what a node gives, once."""
        if node in self.env:
            return self.env[node]
        if node in self._values:
            self.env[node] = self._values[node]
            return self.env[node]
        for source in node.all_input_nodes:
            self.of(source)
        self.env[node] = self.run_node(node)
        return self.env[node]

    def of_inputs(self, node: Node, inputs: Mapping[Node, Any]) -> Any:
        """Compute what a node gives if other nodes give `inputs`."""
        self.env = dict(inputs)
        return self.of(node)
