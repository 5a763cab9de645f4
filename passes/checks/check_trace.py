"""Refuse a graph that computes something else than the model that was traced."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ana_fx.errors import TraceError
from ana_fx.passes.base_dialect import Dialect
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.canonical.canonical_graph import CANONICAL
from ana_fx.passes.frontend.output_containers import plain
from ana_fx.passes.frontend.trace_model import bound
from ana_fx.passes.fusion.calibrate import run_floats
from ana_fx.passes.fusion.observation import observation_of

__all__ = ["CheckTrace"]


@dataclass(frozen=True)
class CheckTrace(Pass):
    """Raise TraceError unless the graph gives what the model gives: nothing was baked in that depends on the input.

    Both run on example inputs; without any, nothing can be compared. What the graph gave is noted: the shape of a
    sample at each node, which `FuseLayerMaps` asks for.

    Args:
        model: What was traced; a copy of it runs.
        inputs: Example inputs of the graph; none, and nothing is compared.
        concrete_args: Values for arguments of `forward` that are no inputs of the graph.
    """

    name: ClassVar[str] = "check-trace"
    requires: ClassVar[Dialect] = CANONICAL
    ensures: ClassVar[Dialect] = CANONICAL
    model: nn.Module
    inputs: tuple[Any, ...]
    concrete_args: Mapping[str, Any]

    def run(self, gm: GraphModule) -> bool:
        before = _shapes(gm)
        if self.inputs:
            _compare(self.model, gm, self.inputs, self.concrete_args)
        return _shapes(gm) != before


def _shapes(gm: GraphModule) -> list[tuple[int, ...] | None]:
    return [observation_of(node).sample_shape for node in gm.graph.nodes]


@torch.no_grad()
def _compare(model: nn.Module, gm: GraphModule, inputs: tuple[Any, ...], concrete_args: Mapping[str, Any]) -> None:
    traced = _outputs(run_floats(gm, _copies(inputs), "example_inputs"))
    expected = _outputs(bound(copy.deepcopy(model).eval(), concrete_args)(*_copies(inputs)))
    is_same = _is_close if gm.meta["is_written_out"] else _is_same
    if len(traced) != len(expected) or not all(map(is_same, traced, expected)):
        raise TraceError(
            f"the traced graph of {type(model).__name__} gives other outputs than the model on example_inputs; "
            f"found code that tracing cannot record, such as `x += y` on a tensor that has another name, or random "
            f"numbers in eval mode; needed a pure function of the inputs; write `x = x + y` instead"
        )


def _copies(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return copies of the inputs, since models may write to theirs."""
    return tuple(entry.clone() if isinstance(entry, Tensor) else entry for entry in inputs)


def _outputs(output: Any) -> list[Any]:
    """Return the leaves of an output, whatever containers hold them."""
    return pytree.tree_leaves(plain(output))


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool(torch.isclose(first, second, rtol=0, atol=0, equal_nan=True).all())
    return bool(first == second)


def _is_close(first: Any, second: Any) -> bool:
    """Whether two outputs are alike but for the order of sums.

    A sum of n floats in another order moves by about sqrt(n) * 2**-24 of its size, and a hundred layers add up
    ten times that: 2e-5 for n = 1000. Something baked in moves the output by much more than 1e-4.
    """
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or not second.is_floating_point():
        return _is_same(first, second)
    if first.shape != second.shape:
        return False
    largest = float(second.abs().nan_to_num().max()) if second.numel() else 0.0
    return bool(torch.isclose(first, second, rtol=0, atol=1e-4 * largest, equal_nan=True).all())
