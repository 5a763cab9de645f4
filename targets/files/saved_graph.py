"""The graph of a saved program as plain data, and back; names are checked before a graph is built."""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node

from ana_fx.program.tensor_spec import has_spec, sample_shape_of
from ana_fx.targets.files.plain_values import Plain

__all__ = ["check_paths", "graph_of", "identifier", "plain_node"]

_LONGEST_NAME = 1000


def plain_node(node: Node) -> dict[str, Plain]:
    """A node, with the shape of a sample where it gives a tensor."""
    known: dict[str, Plain] = {"op": node.op, "name": node.name}
    if node.op == "output":
        return known | {"value": _structure(node.args[0])}
    if node.op not in ("placeholder", "call_module") or node.kwargs or (node.op == "placeholder" and node.args):
        raise ValueError(f"found node {node.name!r} that is {node.op} of {node.target}")
    inputs = [each.name for each in node.args if isinstance(each, Node)]
    if len(inputs) != len(node.args):
        raise ValueError(f"found node {node.name!r} with an argument that is no tensor")
    shape = sample_shape_of(node) if has_spec(node) else None
    return known | {"target": str(node.target), "inputs": inputs, "shape": None if shape is None else list(shape)}


def _structure(value: Any) -> Plain:
    """What the graph returns, tuples, lists and dictionaries of nodes."""
    if isinstance(value, Node):
        return {"is": "node", "name": value.name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"is": "dict", "items": [[key, _structure(each)] for key, each in value.items()]}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return {"is": "tuple" if isinstance(value, tuple) else "list", "items": [_structure(each) for each in value]}
    raise ValueError(f"found an output of {type(value).__name__}, needed tensors in tuples, lists and dictionaries")


def graph_of(nodes: list[Plain], paths: Any) -> Graph:
    graph, known = Graph(), dict[str, Node]()
    for each in nodes:
        if not isinstance(each, dict) or _is_closed(graph):
            raise ValueError("found a node behind the output, or one without a name")
        name = identifier(each.get("name"))
        if each.get("op") == "output" and each.keys() == {"op", "name", "value"}:
            node = graph.create_node("output", "output", (_built(each["value"], known, 0),), {}, name)
        elif each.keys() == {"op", "name", "target", "inputs", "shape"}:
            node = _call(graph, each, known, paths)
        else:
            raise ValueError(f"found node {name!r} of another kind")
        if node.name != name:  # torch renames what it knows already
            raise ValueError(f"found name {name!r}, which another node has, or Python")
        known[name] = node
    if not _is_closed(graph):
        raise ValueError("found no output")
    graph.lint()
    return graph


def _is_closed(graph: Graph) -> bool:
    """Whether a graph has its output."""
    return bool(graph.find_nodes(op="output"))


def _call(graph: Graph, each: dict[str, Plain], known: dict[str, Node], paths: Any) -> Node:
    """An input, or the call of a module."""
    target, inputs, shape = each["target"], each["inputs"], each["shape"]
    if not isinstance(inputs, list) or not all(isinstance(name, str) and name in known for name in inputs):
        raise ValueError(f"found node {each['name']!r} before its inputs")
    if each["op"] == "placeholder" and not inputs:
        node = graph.create_node("placeholder", identifier(target), (), {}, each["name"])
    elif each["op"] == "call_module" and isinstance(target, str) and target in paths:
        node = graph.create_node("call_module", target, tuple(known[name] for name in inputs), {}, each["name"])
    else:
        raise ValueError(f"found node {each['name']!r} of another kind")
    if shape is not None and not (isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)):
        raise ValueError(f"found shape {str(shape)[:60]} of node {each['name']!r}")
    return node


def _built(plain: Plain, known: dict[str, Node], depth: int) -> Any:
    """What a graph returns, from its description."""
    if plain is None or type(plain) in (bool, int, float, str):
        return plain
    if depth > 20 or not isinstance(plain, dict):
        raise ValueError(f"found an output of {str(plain)[:60]}")
    if plain.get("is") == "node" and isinstance(plain.get("name"), str) and plain["name"] in known:
        return known[plain["name"]]
    items = plain.get("items")
    if not isinstance(items, list):
        raise ValueError(f"found an output of {str(plain)[:60]}")
    if plain.get("is") in ("tuple", "list"):
        built = [_built(each, known, depth + 1) for each in items]
        return tuple(built) if plain["is"] == "tuple" else built
    if plain.get("is") == "dict" and all(isinstance(i, list) and len(i) == 2 and isinstance(i[0], str) for i in items):
        return {key: _built(each, known, depth + 1) for key, each in items}
    raise ValueError(f"found an output of {str(plain)[:60]}")


def check_paths(paths: Iterable[str]) -> None:
    """Refuse names of modules that could be more than names in the code that torch writes for a graph."""
    root, inner = GraphModule(nn.Module(), Graph()), nn.Module()
    for path in paths:
        parts = path.split(".")
        is_plain = all(part and part.isprintable() and not set(part) & set("\"'\\`{}") for part in parts)
        is_free = not hasattr(root, parts[0]) and not any(hasattr(inner, part) for part in parts)
        if len(path) > _LONGEST_NAME or not is_plain or not is_free:
            raise ValueError(f"found module {path[:60]!r}, needed a path of plain names")


def identifier(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name == "self":
        raise ValueError(f"found name {str(name)[:60]!r}, needed an identifier")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"found a name of {len(name):,} characters")
    return name
