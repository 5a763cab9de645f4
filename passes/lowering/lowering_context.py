"""What the rules of lowering share: the graph, what is known of its nodes, and how modules are put into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of, unique_path
from ana_fx.passes.node_by_node import Evaluator
from ana_fx.program.integer_modules import IntegerConstant
from ana_fx.program.layout import Layout
from ana_fx.program.level_flow import levels_given
from ana_fx.program.tensor_spec import LevelRange, TensorSpec, set_spec, spec_of

__all__ = ["LoweringContext", "Rule"]


@dataclass(frozen=True)
class LoweringContext:
    """What one run of `Lower` works with.

    Args:
        gm: The graph that is lowered, node by node, in its order.
        modules: The trained module that each node calls.
        values: What every node gives that holds no tensor, and every node that depends on no input.
        evaluator: Computes nodes of the trained graph.
        problems: Gets a line for each operation that does not fit the integers.
    """

    gm: GraphModule
    modules: Mapping[Node, nn.Module]
    values: Mapping[Node, Any]
    evaluator: Evaluator
    problems: list[str] = field(default_factory=list)

    def levels(self, node: Node) -> LevelRange:
        """Return the levels of a node that was lowered."""
        levels = spec_of(node).levels
        assert levels is not None
        return levels

    def replace(self, node: Node, module: nn.Module, sources: Sequence[Node], levels: LevelRange | None = None) -> None:
        """Let a node call a module of the program, on `sources`.

        Args:
            node: It keeps its place, its name, its layout, and its path unless another node calls the module there.
            module: What it calls from now on.
            sources: What it reads from now on.
            levels: What the module gives, where it does not say so itself.
        """
        path = str(node.target)
        if module_of(node) is not self.modules[node]:  # a node before called the same module
            path = unique_path(self.gm, path)
        self.gm.add_submodule(path, module.eval())
        node.target, node.args = path, tuple(sources)
        self._note(node, module, spec_of(node).layout, levels)

    def insert_before(self, node: Node, path: str, module: nn.Module, sources: Sequence[Node], layout: Layout) -> Node:
        """Insert a node before another that calls a module of the program, at a path near `path`; return it."""
        path = unique_path(self.gm, path)
        self.gm.add_submodule(path, module.eval())
        with self.gm.graph.inserting_before(node):
            call = self.gm.graph.call_module(path, tuple(sources))
        call.meta, call.stack_trace = dict(node.meta), node.stack_trace
        self._note(call, module, layout, None)
        return call

    def renew(self, node: Node, constant: IntegerConstant) -> None:
        """Let a node that was lowered call a constant instead."""
        self.gm.add_submodule(str(node.target), constant.eval())
        node.args = ()
        self._note(node, constant, spec_of(node).layout, None)

    def drop(self, node: Node, instead: Node) -> None:
        """Remove a node, whose readers read another one."""
        node.replace_all_uses_with(instead)
        self.gm.graph.erase_node(node)

    @staticmethod
    def _note(node: Node, module: nn.Module, layout: Layout, levels: LevelRange | None) -> None:
        inputs = [spec_of(source) for source in node.all_input_nodes]
        set_spec(node, TensorSpec(layout, levels or levels_given(module, inputs)))


Rule = Callable[[LoweringContext, Node, Any], None]
"""Lowers a node, given the module that it calls, whose class says which rule is meant; None where it calls none."""
