"""Graphs as text, and models written as one expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ana_fx.graph import module_of
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.passes.base_pass import run_pipeline
from ana_fx.passes.canonical.canonical_dialect import is_shape
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.drop_identities import DropIdentities
from ana_fx.passes.frontend.trace_model import trace
from ana_fx.passes.fusion.fuse_layer_maps import FuseLayerMaps
from ana_fx.passes.fusion.insert_constants import InsertConstants
from ana_fx.passes.fusion.swap_pool_and_activation import SwapPoolAndActivation


class Written(nn.Module):
    """A model whose forward is one expression of itself and its inputs.

    >>> model = Written(lambda m, x: m.conv(x).relu(), conv=nn.Conv2d(1, 2, 3))
    """

    def __init__(self, forward: Callable[..., Any], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


class WrittenForTwo(Written):
    """The same with two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self._forward(self, x, y)


def graph_text(gm: GraphModule) -> str:
    """The graph in one line: `x -> Conv2d -> ReLU -> add(ReLU, x) -> output`.

    A node that does not read just the one before it says what it reads. Scales and sizes are left out.
    """
    labels: dict[Node, str] = {}
    seen: Counter[str] = Counter()
    parts: list[str] = []
    previous: list[Node] = []
    for node in gm.graph.nodes:
        if node.op == "get_attr" or is_shape(node):
            continue
        inputs = [arg for arg in _flat(node.args) if isinstance(arg, Node) and arg in labels]
        label = _label(node)
        seen[label] += 1
        labels[node] = label if seen[label] == 1 else f"{label}_{seen[label]}"
        reads = "" if inputs == previous or not inputs else f"({', '.join(labels[each] for each in inputs)})"
        parts.append(labels[node] + reads)
        previous = [node]
    return " -> ".join(parts)


def assert_graph(gm: GraphModule, wanted: str) -> None:
    """The graph reads as `wanted`; line breaks and indentation do not count."""
    assert graph_text(gm) == " ".join(wanted.split())


def canonical(model: nn.Module) -> GraphModule:
    """The traced model in canonical form."""
    return run_pipeline(trace(model), (Canonicalize(), DropIdentities()))


def fused(model: nn.Module) -> GraphModule:
    """The traced model as layer maps, without quantizers."""
    return run_pipeline(canonical(model), (SwapPoolAndActivation(), InsertConstants(), FuseLayerMaps()))


@torch.no_grad()
def assert_same_numbers(first: nn.Module, second: nn.Module, *inputs: Tensor) -> None:
    """Both compute the same bits in eval mode."""
    assert torch.equal(first.eval()(*inputs), second.eval()(*inputs))


def _flat(args: Any) -> list[Any]:
    if isinstance(args, dict):
        return _flat(list(args.values()))
    return [leaf for arg in args for leaf in _flat(arg)] if isinstance(args, (tuple, list)) else [args]


def _label(node: Node) -> str:
    module = module_of(node)
    if isinstance(module, LayerMap):
        return _layer_map_label(module)
    if module is not None:
        return type(module).__name__
    if node.op == "call_function":
        return getattr(node.target, "__name__", str(node.target))
    return str(node.target)


def _layer_map_label(layer_map: LayerMap) -> str:
    if not isinstance(layer_map, OperatorMap):
        return type(layer_map).__name__
    parts = [type(layer_map.operator).__name__]
    if layer_map.norm is not None:
        parts.append("norm")
    if layer_map.line != (1.0, 0.0):
        parts.append("line")
    minimum, maximum = layer_map.clip_range.minimum, layer_map.clip_range.maximum
    if (minimum, maximum) != (-torch.inf, torch.inf):
        parts.append("relu" if (minimum, maximum) == (0, torch.inf) else f"[{minimum:g}, {maximum:g}]")
    return "+".join(parts)
