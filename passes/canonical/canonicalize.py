"""One spelling for each operation: functional and method forms become modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.errors import UnsupportedError, listing
from ana_fx.graph import constant_nodes, location, module_of
from ana_fx.layers.table_map import Elementwise
from ana_fx.passes.base_dialect import TRACED, Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_dialect import is_movement, is_shape, unsupported_reason
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.canonical.rewrites import OVERWRITES, UnfitError, is_overwritten_early, spelled
from ana_fx.passes.canonical.spellings import ADVICE, spellings

__all__ = ["Canonicalize"]


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Rewrite every operation to its canonical spelling, or refuse all that have none.

    before   x -> F.relu(x) -> x.mean((2, 3)) -> torch.add(x, y) -> x.contiguous()
    after    x -> ReLU      -> AdaptiveAvgPool2d(1) -> Flatten   -> operator.add(x, y)

    Shape arithmetic (`x.size(0)`, `x.shape`) and data movement are left as they are, and so is what
    depends on parameters and buffers alone.
    """

    name: ClassVar[str] = "canonicalize"
    requires: ClassVar[Dialect] = TRACED
    ensures: ClassVar[Dialect] = CANONICAL

    def run(self, gm: GraphModule) -> bool:
        before = _spellings(gm)
        constants = constant_nodes(gm)
        nodes = [node for node in gm.graph.nodes if node not in constants]
        problems = [f"{location(node)}: {reason}" for node in nodes if (reason := _rewrite(gm, node))]
        if problems:
            raise UnsupportedError(
                listing(
                    f"{len(problems)} operation(s) cannot be quantised:",
                    problems,
                    "replace them by supported ones, or keep this part of the model outside prepare()",
                )
            )
        gm.graph.eliminate_dead_code()
        return _spellings(gm) != before


def _spellings(gm: GraphModule) -> list[tuple[Any, ...]]:
    """Return what every node calls, and with which arguments."""
    called = [(node, module_of(node)) for node in gm.graph.nodes]
    return [
        (node.op, node.target, node.args, node.kwargs, type(module), getattr(module, "inplace", False))
        for node, module in called
    ]


def _rewrite(gm: GraphModule, node: Node) -> str | None:
    """Bring one node to its canonical form; return the reason if it has none."""
    if node.op == "call_module":
        module = module_of(node)
        if getattr(module, "inplace", False):
            if is_overwritten_early(node):
                return OVERWRITES
            module.inplace = False  # type: ignore[union-attr]  # a graph has no aliases; prepare compares it with the model
        if isinstance(module, nn.Hardtanh) and not module.min_val <= 0.0 <= module.max_val:
            clamp = Elementwise(torch.clamp, min=module.min_val, max=module.max_val)
            gm.set_submodule(str(node.target), clamp.train(gm.training))
            return None
        return unsupported_reason(module)
    if node.op == "output":
        return _parts_reason(node) or _constants_reason(node)
    if node.op in ("placeholder", "get_attr") or is_shape(node):
        return None
    spelling = spellings().get(node.target)
    if spelling is None and is_movement(node):
        return None
    if node.target in ADVICE:
        return f"{spelled(node)}() {ADVICE[node.target]}"
    if spelling is None:
        return f"{spelled(node)}() has no integer form here (ana_fx.supported_operators() lists what has)"
    if spelled(node).endswith("_") and is_overwritten_early(node):
        return OVERWRITES
    try:
        return spelling(gm, node)
    except (UnfitError, TypeError, ValueError) as reason:
        return f"{spelled(node)}(): {reason}"


def _constants_reason(output: Node) -> str | None:
    """Say which output depends on no input; None if all do."""
    constants = constant_nodes(output.graph.owning_module)
    for node in output.all_input_nodes:
        if node in constants:
            return f"{node.name} is returned, which depends on no input; needed outputs computed from the inputs"
    return None


def _parts_reason(output: Node) -> str | None:
    """Say which operation that gives several tensors is returned as a whole; None if none is."""
    for node in output.all_input_nodes:
        if spelled(node) in ("chunk", "split", "unbind", "tensor_split"):
            return f"{spelled(node)}() is returned as a whole, needed its parts; write a, b = x.{spelled(node)}(...)"
    return None
