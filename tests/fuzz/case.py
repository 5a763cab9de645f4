"""A case of the fuzzer: source text of a model, its inputs, and the settings that it is prepared with."""

from __future__ import annotations

import pprint
import re
import runpy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["BATCH", "Case", "Loaded", "Statement", "load", "load_text", "names_in", "renamed"]

BATCH = 3
_IMPORTS = {
    r"\bmath\.": "import math",
    r"\boperator\.": "import operator",
    r"\btorch\.": "import torch",
    r"\bF\.": "import torch.nn.functional as F",
    "": "from torch import nn",
}
_NAME = re.compile(r"\b[tx]\d+(?:_\d+)?\b")


def names_in(text: str) -> list[str]:
    """The tensors that a text names, in its order."""
    return list(dict.fromkeys(_NAME.findall(text)))


def renamed(text: str, old: str, new: str) -> str:
    """The text with one tensor in the place of another."""
    return re.sub(rf"\b{old}\b", new, text)


@dataclass(frozen=True)
class Statement:
    """One thing that the model does.

    Args:
        results: The names of the tensors that it makes.
        members: Lines of `__init__`.
        lines: Lines of `forward`.
    """

    results: tuple[str, ...]
    members: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def reads(self) -> list[str]:
        """The tensors of others that it reads, in the order of the text."""
        return [name for name in names_in("\n".join(self.lines)) if name not in self.results]

    def reading(self, old: str, new: str) -> Statement:
        """The same with one tensor in the place of another."""
        return replace(self, lines=tuple(renamed(line, old, new) for line in self.lines))


@dataclass(frozen=True)
class Case:
    """A model and what is done with it.

    Args:
        seed: Of the weights and the inputs.
        inputs: Shape, batch included, and kind of each input of `forward`.
        statements: What the model does.
        outputs: The expression that `forward` returns.
        settings: See tests/fuzz/settings.py.
    """

    seed: int
    inputs: dict[str, tuple[tuple[int, ...], str]]
    statements: tuple[Statement, ...]
    outputs: str
    settings: dict[str, Any] = field(default_factory=dict)

    def without_dead_code(self) -> Case:
        """The same without the statements and inputs that nothing reads; one input stays."""
        wanted = set(names_in(self.outputs))
        kept: list[Statement] = []
        for statement in reversed(self.statements):
            if wanted.intersection(statement.results):
                kept.append(statement)
                wanted.update(statement.reads)
        read = {name: value for name, value in self.inputs.items() if name in wanted}
        inputs = read or dict(list(self.inputs.items())[:1])
        return replace(self, statements=tuple(reversed(kept)), inputs=inputs)

    def source(self) -> str:
        """The text of the model."""
        members = [line for each in self.statements for line in each.members]
        lines = [line for each in self.statements for line in each.lines]
        code = "\n".join([*members, *lines, self.outputs])
        imports = [line for pattern, line in _IMPORTS.items() if re.search(pattern, code)]
        return "\n".join(
            [
                *imports,
                "",
                "",
                "class Net(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *(f"        {line}" for line in members),
                "",
                f"    def forward(self, {', '.join(self.inputs)}):",
                *(f"        {line}" for line in lines),
                f"        return {self.outputs}",
                "",
            ]
        )

    def text(self, title: str) -> str:
        """A file that holds the whole case; `load` reads it."""
        kept = {"INPUTS": self.inputs, "SETTINGS": self.settings, "SEED": self.seed}
        constants = [f"{name} = {pprint.pformat(value, width=110, sort_dicts=False)}" for name, value in kept.items()]
        return "\n".join([f'"""{title}"""', "", self.source(), "", *constants, ""])


@dataclass(frozen=True)
class Loaded:
    """A case that was read from a file or made from text, ready to be run."""

    title: str
    net: Any
    inputs: dict[str, tuple[tuple[int, ...], str]]
    settings: dict[str, Any]
    seed: int
    open_finding: str | None = None
    is_strict: bool = True


def load(path: Path) -> Loaded:
    """The case that stands in a file of the corpus."""
    return _loaded(runpy.run_path(str(path)))


def load_text(case: Case) -> Loaded:
    """A case as Python reads its text; errors of the library can quote its lines."""
    import linecache

    text, name = case.text(""), f"<case {case.seed}>.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "fuzz_case"}
    exec(compile(text, name, "exec"), namespace)  # our own text
    return _loaded(namespace)


def _loaded(namespace: dict[str, Any]) -> Loaded:
    return Loaded(
        str(namespace["__doc__"]),
        namespace["Net"],
        namespace["INPUTS"],
        namespace["SETTINGS"],
        namespace["SEED"],
        namespace.get("OPEN"),
        namespace.get("STRICT", True),
    )
