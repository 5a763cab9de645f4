"""What every pass is: a frozen dataclass that changes a graph module in place and says whether it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch.fx import GraphModule

from ana_fx.graph import delete_unused_modules

__all__ = ["Pass", "run_pipeline"]


class Pass(ABC):
    """A change of a graph. The fields of a subclass are its options; it keeps nothing else."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, gm: GraphModule) -> bool:
        """Change `gm` in place; True if anything changed."""

    def __call__(self, gm: GraphModule) -> bool:
        """Run, then lint and recompile if anything changed."""
        is_changed = self.run(gm)
        if is_changed:
            delete_unused_modules(gm)
            gm.graph.lint()
            gm.recompile()
        return is_changed


def run_pipeline(gm: GraphModule, pipeline: tuple[Pass, ...]) -> GraphModule:
    """Run the passes one after the other on `gm` and return it."""
    for each in pipeline:
        each(gm)
    return gm
