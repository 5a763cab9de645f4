"""The builder: each statement that is added is run at once, so that shapes are known and all of it fits."""

from __future__ import annotations

import math
import operator
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fuzz.case import BATCH, Statement

__all__ = ["Builder", "Production", "UnfitError", "tensor_of"]

T = TypeVar("T")
_LARGEST_SAMPLE = 600  # numbers of one tensor, so that networks stay small


class UnfitError(Exception):
    """A production has no operand that it can take; another is drawn."""


class Builder:
    """Draws from one generator, and knows the shape of each tensor."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.statements: list[Statement] = []
        self.tensors: dict[str, Tensor] = {}
        self._root = nn.Module()
        self._count = 0

    @property
    def num_statements(self) -> int:
        """How many there are."""
        return len(self.statements)

    def add_input(self, shape: tuple[int, ...], kind: str) -> None:
        """An input of the model."""
        self.tensors[f"x{len(self.tensors)}"] = tensor_of(shape, kind, torch.Generator().manual_seed(0))

    def pick(self, *ranks: int, where: Callable[[list[int]], bool] = lambda _: True) -> tuple[str, list[int]]:
        """The name and the shape of a tensor of one of these ranks, mostly a recent one.

        Raises:
            UnfitError: There is none.
        """
        fitting = [
            (name, list(x.shape))
            for name, x in self.tensors.items()
            if (not ranks or x.dim() in ranks) and where(list(x.shape))
        ]
        if not fitting:
            raise UnfitError
        return self.rng.choice(fitting[-3:] if self.chance(0.8) else fitting)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def of(self, *choices: T) -> T:
        """One of these."""
        return self.rng.choice(choices)

    def divisor(self, number: int) -> int:
        """Any divisor."""
        return self.rng.choice([each for each in range(1, number + 1) if number % each == 0])

    def member(self, kind: str, code: str) -> tuple[str, str]:
        """A new member, as it is read, and the line that makes it."""
        name = f"self.{kind}{self._count + 1}"
        return name, f"{name} = {code}"

    def buffer(self, kind: str, code: str) -> tuple[str, str]:
        """A new buffer, as it is read, and the line that makes it."""
        name = f"{kind}{self._count + 1}"
        return f"self.{name}", f'self.register_buffer("{name}", {code})'

    def call(self, kind: str, code: str, x: str) -> None:
        """Add a module and its call."""
        name, line = self.member(kind, code)
        self.add(f"{name}({x})", line)

    def call_either(self, share: float, function: str, kind: str, module: str, x: str, settings: str) -> None:
        """Add a function, in that share of the cases, or the module that does the same."""
        if self.chance(share):
            self.add(f"{function}({x}, {settings})")
        else:
            self.call(kind, f"{module}({settings})", x)

    def add(self, code: str, *members: str, before: Sequence[str] = (), parts: int = 1) -> None:
        """Add a statement whose results are an expression, or as many parts of it.

        Raises:
            UnfitError: It does not run, or gives what no later statement could read.
        """
        count = self._count + 1
        names = (f"t{count}",) if parts == 1 else tuple(f"t{count}_{part}" for part in range(parts))
        statement = Statement(names, tuple(members), (*before, f"{', '.join(names)} = {code}"))
        found = self._run(statement)
        self._count = count
        self.statements.append(statement)
        self.tensors.update(zip(names, found, strict=True))

    @torch.no_grad()
    def _run(self, statement: Statement) -> list[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._run_quietly(statement)

    def _run_quietly(self, statement: Statement) -> list[Tensor]:
        tensors = {name: x.clone() for name, x in self.tensors.items()}
        names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "operator": operator, "math": math}
        names |= {"self": self._root, **tensors}
        try:
            exec("\n".join(statement.members), names)  # our own text
            self._root.eval()
            exec("\n".join(statement.lines), names)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError) as error:
            raise UnfitError from error
        found = [names[name] for name in statement.results]
        if not all(_is_fit(x) for x in found):
            raise UnfitError
        for name, x in tensors.items():  # overwritten
            self.tensors[name] = names[name] if names[name].shape == x.shape else x
        return found


def _is_fit(x: Any) -> bool:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() == 0 or x.size(0) != BATCH:
        return False
    return 0 < x.numel() <= BATCH * _LARGEST_SAMPLE and x.dim() <= 5 and bool(x.isfinite().all())


Production = Callable[[Builder], None]


def tensor_of(shape: tuple[int, ...], kind: str, generator: torch.Generator) -> Tensor:
    """A random tensor: "unit" numbers in [0, 1], "signed" ones around 0, or "wide" ones of many magnitudes."""
    if kind == "unit":
        return torch.rand(shape, generator=generator)
    x = torch.randn(shape, generator=generator)
    return x if kind == "signed" else x * 10 ** torch.empty(shape).uniform_(-2, 1, generator=generator)
