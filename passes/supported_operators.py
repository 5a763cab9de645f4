"""Lists what model code may call, from the tables that the passes use, so that it is always what they take."""

from __future__ import annotations

import operator
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ana_fx.passes.canonical.canonical_dialect import MOVEMENTS, SUPPORTED_MODULES
from ana_fx.passes.canonical.spellings import spellings
from ana_fx.passes.frontend.decompositions import WRITTEN_OUT
from ana_fx.text.json_text import JsonReport

__all__ = ["Operators", "supported_operators"]

_WIDTH = 110


@dataclass(frozen=True)
class Operators(JsonReport):
    """The modules, functions and methods that `prepare` takes, by name; prints as three lists.

    Args:
        modules: Classes of `torch.nn`.
        functions: Of `torch`, `torch.nn.functional` (F) and `operator`.
        methods: Of tensors.
    """

    modules: tuple[str, ...]
    functions: tuple[str, ...]
    methods: tuple[str, ...]

    def __contains__(self, name: object) -> bool:
        return name in (*self.modules, *self.functions, *self.methods)

    def __str__(self) -> str:
        parts = (("modules", self.modules), ("functions", self.functions), ("methods", self.methods))
        return "\n\n".join(f"{title}\n{_wrapped(names)}" for title, names in parts)


def supported_operators() -> Operators:
    """What `prepare` takes: modules, functions and methods by name.

    Not every argument of each: what an argument must be, a refusal says.

    Examples:
        >>> "nn.Conv2d" in supported_operators(), "torch.cumsum" in supported_operators()
        (True, False)
    """
    modules = {f"nn.{kind.__name__}" for kind in SUPPORTED_MODULES if kind.__module__.startswith("torch.")}
    targets = {*spellings(), *MOVEMENTS, *WRITTEN_OUT} - {getattr}
    names = {function: f"{space}.{name}" for space, name, function in _public_functions()}
    return Operators(
        tuple(sorted({*modules, "nn.MultiheadAttention"})),  # written out before anything is traced
        tuple(sorted({names.get(each, each.__name__) for each in targets if not isinstance(each, str)})),
        tuple(sorted(f"x.{each}()" for each in targets if isinstance(each, str))),
    )


def _public_functions() -> Iterator[tuple[str, str, Any]]:
    for space, namespace in (("torch", torch), ("F", F), ("operator", operator)):
        for name, value in vars(namespace).items():
            if not name.startswith("_") and callable(value) and not isinstance(value, type):
                yield space, name, value


def _wrapped(names: Iterable[str]) -> str:
    return textwrap.fill("  ".join(names), _WIDTH, initial_indent="  ", subsequent_indent="  ")
