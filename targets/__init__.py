"""Targets: from integer program to file, one file a target.

`ana_fx.targets` is this package, and a function: called, it lists every target there is.
"""

from __future__ import annotations

import sys
from types import ModuleType

from ana_fx.target_registry import TargetList, targets

__all__: list[str] = []


class _CallablePackage(ModuleType):
    """So that `ana_fx.targets()` lists the targets although `ana_fx.targets` is where their code is."""

    def __call__(self) -> TargetList:
        """List every target, as `ana_fx.target_registry.targets` does."""
        return targets()


sys.modules[__name__].__class__ = _CallablePackage
