"""Renames modules whose names are keywords of Python, as keys of a ModuleDict can be."""

from __future__ import annotations

import keyword
from typing import Any

from torch import nn
from torch.fx import Graph

__all__ = ["rename_keywords"]


def rename_keywords(root: nn.Module, graph: Graph, notes: list[str]) -> None:
    """Give modules, parameters and buffers called `in` or `class` a name that code can hold.

    before   x -> heads.in -> heads.class
    after    x -> heads.in_ -> heads.class_

    Args:
        root: The modules that the graph calls; they are renamed there.
        graph: Its targets are renamed.
        notes: Gets a line for each new name.
    """
    new_names: dict[str, str] = {}  # for each path that ends in a keyword, the name instead
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        parts: list[str] = []
        old = str(node.target).split(".")
        for depth, part in enumerate(old, start=1):
            path = ".".join(old[:depth])
            if keyword.iskeyword(part) and path not in new_names:
                new_names[path] = _rename(root.get_submodule(".".join(parts)), part)
                new = ".".join([*parts, new_names[path]])
                notes.append(f"{path!r} is called {new!r} here: {part!r} is a keyword of Python")
            parts.append(new_names.get(path, part))
        node.target = ".".join(parts)


def _rename(parent: nn.Module, name: str) -> str:
    """Give a member of a module another name at the same place, and return the name."""
    new = f"{name}_"
    while hasattr(parent, new):
        new += "_"
    homes: tuple[dict[str, Any], ...] = (parent._modules, parent._parameters, parent._buffers)
    for members in homes:
        if name in members:
            items = {new if key == name else key: value for key, value in members.items()}
            members.clear()
            members.update(items)
    return new
