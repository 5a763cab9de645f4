"""The program computes what the trained model computed: the last guard behind the proofs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ana_fx.errors import MismatchError
from ana_fx.graph import location
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.frontend.output_containers import plain
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.passes.lowering.recording import Run
from ana_fx.program.tensor_spec import spec_of

__all__ = ["CompareRuns", "keep_runs"]

_KEY = "runs"  # of `GraphModule.meta`; no other file knows it


def keep_runs(gm: GraphModule, runs: tuple[Run, ...]) -> None:
    """Keep what the trained model gave, until the program is compared with it."""
    gm.meta[_KEY] = runs


@dataclass(frozen=True)
class CompareRuns(Pass):
    """Run the program on what the trained model was run on, and compare every number; then forget these runs."""

    name: ClassVar[str] = "compare-runs"
    requires: ClassVar[Dialect] = PROGRAM
    ensures: ClassVar[Dialect] = PROGRAM

    def run(self, gm: GraphModule) -> bool:
        for trained in gm.meta.pop(_KEY, ()):
            _compare_run(trained, gm)
        return False


@torch.no_grad()
def _compare_run(trained: Run, program: GraphModule) -> None:
    waiting: dict[nn.Module, list[Node]] = {}
    for node in program.graph.find_nodes(op="call_module"):
        waiting.setdefault(program.get_submodule(str(node.target)), []).append(node)

    def compare(module: nn.Module, _: Any, found: Tensor) -> None:
        node = waiting[module].pop(0)
        if node.name in trained.tensors and not found.is_floating_point():
            levels = spec_of(node).levels
            assert levels is not None
            real = found.to(torch.float32) * levels.scale  # logits may be above 2**24
            _compare(node, trained.tensors[node.name], real)

    hooks = [module.register_forward_hook(compare) for module in waiting]
    try:
        outputs = program(*trained.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for wanted, given in zip(_leaves(trained.outputs), _leaves(outputs), strict=True):
        _compare(program.graph.output_node(), wanted, given)


def _leaves(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(plain(outputs)) if isinstance(leaf, Tensor)]


def _compare(node: Node, wanted: Tensor, found: Tensor) -> None:
    is_different = wanted != found
    if bool(is_different.any()):
        index = tuple(is_different.nonzero()[0].tolist())
        raise MismatchError(
            f"{location(node)}: the program differs from the trained model at {node.name!r} first: "
            f"{int(is_different.sum())} of {is_different.numel()} numbers, at {index} found {found[index].item()}, "
            f"needed {wanted[index].item()}; this is a bug of ana_fx, please report it"
        )
