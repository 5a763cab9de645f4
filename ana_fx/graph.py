"""Questions about fx graphs that more than one pass asks."""

from __future__ import annotations

import itertools
import operator
import os
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import Quantizer

__all__ = [
    "calls_of",
    "calls_to",
    "constant_nodes",
    "constant_parameters",
    "delete_unused_modules",
    "layer_map_calls",
    "layer_map_of",
    "layer_maps",
    "location",
    "module_of",
    "module_path",
    "outputs",
    "parameters_of",
    "quantizers",
    "source_line",
    "unique_path",
]

_Module = TypeVar("_Module", bound=nn.Module)
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n\s+(?P<code>.*)')
_NOT_THE_USERS = tuple(os.path.join(os.path.dirname(file), "") for file in (torch.__file__, __file__))


def module_of(node: Node) -> nn.Module | None:
    """The module that a node calls, or None if it calls none."""
    if node.op != "call_module":
        return None
    assert node.graph.owning_module is not None
    module: nn.Module = node.graph.owning_module.get_submodule(str(node.target))
    return module


def layer_map_of(node: Node) -> LayerMap | None:
    """The layer map that a node calls, or None if it calls none."""
    module = module_of(node)
    return module if isinstance(module, LayerMap) else None


def layer_map_calls(gm: GraphModule) -> list[tuple[Node, LayerMap]]:
    """The nodes that call a layer map, with it, in graph order."""
    return [(node, found) for node in gm.graph.nodes if (found := layer_map_of(node)) is not None]


def calls_of(gm: GraphModule, kind: type[_Module]) -> list[tuple[Node, _Module]]:
    """The nodes that call a module of a kind, with it, in graph order."""
    return [(node, module) for node in gm.graph.nodes if isinstance(module := module_of(node), kind)]


def calls_to(gm: GraphModule, *kinds: type[nn.Module]) -> list[Node]:
    """The nodes that call a module of one of these kinds, in graph order."""
    return [node for node in gm.graph.nodes if isinstance(module_of(node), kinds)]


def constant_nodes(gm: GraphModule) -> set[Node]:
    """The nodes that compute from the model's parameters and buffers alone."""
    constants: set[Node] = set()
    for node in gm.graph.nodes:
        if node.op not in ("placeholder", "output") and constants.issuperset(node.all_input_nodes):
            constants.add(node)
    return constants


def constant_parameters(node: Node) -> set[nn.Parameter]:
    """The parameters that a constant is computed from."""
    return {parameter for source in node.all_input_nodes for parameter in parameters_of(source)}


def parameters_of(node: Node) -> set[nn.Parameter]:
    """The parameters that a node reads, or what it computes from."""
    gm = node.graph.owning_module
    assert gm is not None
    parameters: set[nn.Parameter] = set()
    todo, seen = [node], set()
    while todo:
        each = todo.pop()
        if each in seen:
            continue
        seen.add(each)
        todo += each.all_input_nodes
        module = module_of(each)
        if module is not None:
            parameters.update(module.parameters())
        elif each.op == "get_attr":
            tensor = operator.attrgetter(str(each.target))(gm)
            parameters.update([tensor] if isinstance(tensor, nn.Parameter) else [])
    return parameters


def layer_maps(gm: GraphModule) -> dict[str, LayerMap]:
    """The quantised layer maps by module path, in graph order."""
    maps = {}
    for node, layer_map in layer_map_calls(gm):
        if layer_map.is_quantized:
            maps[str(node.target)] = layer_map
    return maps


def outputs(gm: GraphModule) -> list[tuple[str, Node]]:
    """The tensors that a graph returns, each with a name: "output", or what leads to it in tuples and dictionaries."""
    leaves, _ = pytree.tree_flatten_with_path(
        gm.graph.output_node().args[0], is_leaf=lambda each: isinstance(each, Node)
    )
    named = [("_".join(_key(part) for part in path), node) for path, node in leaves if isinstance(node, Node)]
    if len(named) == 1:
        return [("output", named[0][1])]
    return [(f"output_{name}" if name[:1].isdigit() else name, node) for name, node in named]


def _key(part: Any) -> str:
    return str(next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name)))


def quantizers(gm: GraphModule) -> Iterator[tuple[str, Quantizer]]:
    """Every quantizer that the graph uses, with a name a person knows: the input's, then each layer map's."""
    for node in gm.graph.nodes:
        module = module_of(node)
        if isinstance(module, InputQuantizer):
            yield str(node.target), module
        layer_map = layer_map_of(node)
        if layer_map is not None and layer_map.weight_quantizer is not None:
            yield f"{node.target}.weight_quantizer", layer_map.weight_quantizer
        if layer_map is not None and layer_map.output_quantizer is not None:
            yield f"{node.target}.output_quantizer", layer_map.output_quantizer


def delete_unused_modules(gm: GraphModule) -> None:
    """Delete every module that the graph does not call or read from, under each of its names.

    `GraphModule.delete_all_unused_submodules` leaves a second name of a module that is used.
    """
    targets = [str(node.target) for node in gm.graph.nodes if node.op in ("call_module", "get_attr")]
    called = set(targets)
    parents = {
        "",
        *(prefix for target in targets for prefix in itertools.accumulate(target.split("."), "{}.{}".format)),
    }
    deleted: set[str] = set()
    kept: set[str] = set()
    for path, _ in list(gm.named_modules(remove_duplicate=False)):
        owner = path.rpartition(".")[0]
        if owner in deleted:
            deleted.add(path)
        elif path in called or owner in kept:
            kept.add(path)
        elif path not in parents:
            gm.delete_submodule(path)
            deleted.add(path)


def module_path(node: Node) -> str:
    """The path of the module in whose forward the node was traced, or that it calls; "" is the root."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0]) if stack else ""


def source_line(node: Node) -> str | None:
    """`file:line: code` of the user's expression that the node stands for, if it is known."""
    frames = [f for f in _FRAME.finditer(node.stack_trace or "") if not f["file"].startswith(_NOT_THE_USERS)]
    if not frames:
        return None
    return f"{frames[-1]['file']}:{frames[-1]['line']}: {frames[-1]['code'].strip()}"


def location(node: Node) -> str:
    """Where a node comes from, for an error message: module path and source line."""
    where = f"module {module_path(node)!r}" if module_path(node) else "the model's forward"
    line = source_line(node)
    return f"{where}, {line}" if line else where


def unique_path(gm: GraphModule, wanted: str) -> str:
    """A path near `wanted` at which the module has nothing yet: numbered behind those that were given before."""
    if not _has(gm, wanted):
        return wanted
    free = 1
    while _has(gm, f"{wanted}_{free}"):
        free *= 2
    taken = free // 2
    while free - taken > 1:  # by halves, since there may be thousands
        middle = (taken + free) // 2
        taken, free = (middle, free) if _has(gm, f"{wanted}_{middle}") else (taken, middle)
    return f"{wanted}_{free}"


def _has(gm: GraphModule, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    try:
        return hasattr(gm.get_submodule(parent), name)
    except AttributeError:
        return False
