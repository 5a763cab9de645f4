"""What every pass is: a frozen dataclass that changes a graph in place, and says truthfully whether it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule

from ana_fx.errors import AnaFxError
from ana_fx.graph import delete_unused_modules
from ana_fx.passes.base_dialect import Dialect, DialectError
from ana_fx.prepared.graph_form import form_of, set_form

__all__ = ["Pass", "PassResult", "checked_passes", "run_pipeline"]

_IS_CHECKED: ContextVar[bool] = ContextVar("is_checked", default=False)


@dataclass(frozen=True)
class PassResult:
    """What a pass did.

    Args:
        modified: Whether anything changed: the graph, a module that it calls, or a fact noted on a node. If not, a
            caller may keep what it knows of the graph.
    """

    modified: bool


class Pass(ABC):
    """A change of a graph. The fields of a subclass are its options; it keeps nothing else.

    A subclass is written as `run`, which finds what is to be changed, changes it and says whether it did. It may
    rely on the dialect that it `requires`, and leaves the graph in the one that it `ensures`. Everything around that
    is done here: see `__call__`.
    """

    name: ClassVar[str]
    requires: ClassVar[Dialect]
    ensures: ClassVar[Dialect]

    @abstractmethod
    def run(self, gm: GraphModule) -> bool:
        """Change `gm` in place; True if anything changed."""

    def __call__(self, gm: GraphModule) -> PassResult:
        """Run the pass, then drop modules that are called no more and compile the graph, if its nodes changed.

        A graph that has the form already to which this pass leads is left alone, so that a second run changes nothing.
        Inside `checked_passes`, every node is held against the dialects before and after.

        Raises:
            DialectError: The graph has another form than the pass requires or ensures, or changed secretly.
        """
        if self.requires is not self.ensures and form_of(gm) is self.ensures.form:
            return PassResult(modified=False)
        self.requires.check_form(gm)
        is_checked = _IS_CHECKED.get()
        if is_checked:
            self.requires.verify(gm)
        before = _text(gm)
        modified = self.run(gm)
        if self.ensures.form is not None:
            set_form(gm, self.ensures.form)
        if _text(gm) != before:
            if not modified:
                raise DialectError(f"the pass {self.name!r} changed the graph and did not say so")
            delete_unused_modules(gm)
            gm.graph.lint()
            gm.recompile()
        if is_checked:
            self.ensures.verify(gm)
        return PassResult(modified)


def _text(gm: GraphModule) -> list[tuple[Any, ...]]:
    """What the code of a graph is made of, node by node."""
    return [(node.op, node.target, node.args, node.kwargs) for node in gm.graph.nodes]


def run_pipeline(gm: GraphModule, pipeline: Sequence[Pass], *, checks: bool = False) -> GraphModule:
    """Run passes one after the other.

    Args:
        gm: The graph, which is changed in place.
        pipeline: The passes.
        checks: Whether every node is held against the dialects of each pass, as inside `checked_passes`.

    Returns:
        `gm`.

    Raises:
        AnaFxError: A pass refuses the model.
        Exception: What a pass did not foresee; a note says which pass it was, and which passes ran before it.
    """
    if checks:
        with checked_passes():
            return run_pipeline(gm, pipeline)
    for index, each in enumerate(pipeline):
        try:
            each(gm)
        except AnaFxError:
            raise
        except Exception as error:
            before = ", ".join(repr(done.name) for done in pipeline[:index])
            _add_note(error, f"in the pass {each.name!r} of ana_fx, " + (f"after {before}" if before else "the first"))
            raise
    return gm


@contextmanager
def checked_passes() -> Iterator[None]:
    """Within, every pass is checked: each node is held against the dialect before the pass and the one after it.

    Tests and debugging want it; it costs two walks over the graph for each pass.
    """
    token = _IS_CHECKED.set(True)
    try:
        yield
    finally:
        _IS_CHECKED.reset(token)


def _add_note(error: Any, note: str) -> None:
    """Say where an error arose, without another type that callers would not expect; tracebacks show notes."""
    error.__notes__ = [*getattr(error, "__notes__", ()), note]  # what `add_note` does, which Python 3.10 lacks
