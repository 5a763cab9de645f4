"""A family of files whose images lie with their channels last: what all of them do alike."""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module

from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import module_of
from ana_fx.target import Target
from ana_fx.targets.channels_last.layout_program import BORDERS, LayoutProgram
from ana_fx.targets.channels_last.writer_dialect import WriterDialect
from ana_fx.targets.file_family import Emission, FileFamily, FileOrder
from ana_fx.targets.program_needs import needs_of
from ana_fx.text.wording import brief

__all__ = ["LayoutFamily"]


class LayoutFamily(FileFamily):
    """Writes programs by a walk; a family says what walks."""

    @abstractmethod
    def walk(self, program: GraphModule, target: Target, dialect: WriterDialect) -> LayoutProgram:
        """What writes a program."""

    def misfits(self, program: GraphModule, target: Target) -> list[str]:
        """List the nodes that no operator of the family is proven to compute, and those without a writer."""
        dialect = _dialect_of(target)
        found = []
        inner = {each for upsampling in dialect.upsamplings(program).values() for each in upsampling.inner}
        for node in program.graph.nodes:
            module = module_of(node)
            if node in inner or module is None or isinstance(module, BORDERS) or _is_refused(module, target):
                continue
            found += dialect.misfits(node, module, target)
        return found

    def emit(self, program: GraphModule, order: FileOrder) -> Emission:
        """Write the program."""
        walk = self.walk(program, order.target, _dialect_of(order.target))
        walk.write()
        data = walk.pack(type(program).__name__, {**walk.metadata, **order.metadata})
        return Emission(data, tuple(walk.reports))


def _dialect_of(target: Target) -> WriterDialect:
    """Import the table of a target's writers."""
    module, _, name = target.emitter.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, WriterDialect):
        raise TypeError(
            f"emitter {target.emitter!r} of target {target.name!r} is {brief(found)}, needed a WriterDialect"
        )
    return found


def _is_refused(module: nn.Module, target: Target) -> bool:
    """Whether the description of a target refuses a module, which is reported elsewhere."""
    needs = needs_of(module)
    return needs is not None and bool(target.refusals(needs))
