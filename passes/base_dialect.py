"""What every dialect is: a form of graphs, and a rule for which nodes such a graph may hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch.fx import GraphModule, Node

from ana_fx.graph import location
from ana_fx.prepared.graph_form import GraphForm, form_of

__all__ = ["ANY_GRAPH", "TRACED", "AnyGraph", "Dialect", "DialectError", "Traced"]


class DialectError(RuntimeError):
    """A graph does not have the form that a pass requires or ensures: a bug of ana_fx, or passes in a wrong order."""


class Dialect(ABC):
    """A form of graphs. The module of a subclass says what such a graph holds."""

    form: ClassVar[GraphForm | None]

    @abstractmethod
    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """Every node that does not belong into a graph of this form, with the reason."""

    def check_form(self, gm: GraphModule) -> None:
        """Refuse a graph that says itself that it has another form; nothing is known of one made by other hands.

        Raises:
            DialectError: It has another form.
        """
        found = form_of(gm)
        if None not in (self.form, found) and found is not self.form:
            raise DialectError(f"found a {found.value} graph, needed a {self}")  # type: ignore[union-attr]  # not None

    def verify(self, gm: GraphModule) -> None:
        """Look at every node.

        Raises:
            DialectError: Nodes do not belong; the message names each.
        """
        found = [f"{node.name} ({location(node)}): {reason}" for node, reason in self.strangers(gm)]
        if found:
            lines = "\n  ".join([f"{len(found)} node(s) do not belong into a {self}:", *found])
            raise DialectError(f"{lines}\nThis is a bug of ana_fx, please report it.")

    def __str__(self) -> str:
        return "graph" if self.form is None else f"{self.form.value} graph"


class AnyGraph(Dialect):
    """Whatever a graph holds; for passes that only look at it, and leave its form as it is."""

    form: ClassVar[GraphForm | None] = None

    def strangers(self, gm: GraphModule) -> Iterator[tuple[Node, str]]:
        """None at all."""
        yield from ()


class Traced(AnyGraph):
    """Modules, functions and methods as the model's code calls them."""

    form = GraphForm.TRACED


ANY_GRAPH = AnyGraph()
TRACED = Traced()
