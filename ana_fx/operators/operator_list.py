"""The operators there are: those of this folder, and those that other packages register."""

from __future__ import annotations

import functools
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import nn

import ana_fx.operators
from ana_fx.operators.base_operator import Functions, Operator

__all__ = ["ENTRY_POINTS", "built_in_kinds", "function_spellings", "module_spellings", "operator_kinds", "operators"]

ENTRY_POINTS = "ana_fx.operators"  # a group whose objects are a subclass of Operator each


@functools.cache
def operators() -> tuple[type[Operator], ...]:
    """Every operator: one for each file of this folder that defines one, then those of the entry points, by name.

    Raises:
        TypeError: An entry point is no Operator that can be made.
        ValueError: Two operators have one kind, or one spelling.
    """
    added = [_loaded(entry) for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name)]
    return (*_built_in(), *added)


@functools.cache
def _built_in() -> tuple[type[Operator], ...]:
    files = pkgutil.iter_modules(ana_fx.operators.__path__)
    return tuple(found for file in files if (found := _defined_in(file.name)) is not None)


def built_in_kinds() -> frozenset[str]:
    """The kinds of the operators of this folder."""
    return frozenset(operator.kind for operator in _built_in())


@functools.cache
def operator_kinds() -> frozenset[str]:
    """The names by which targets say which operators they have."""
    return frozenset(operator.kind for operator in operators())


@functools.cache
def function_spellings() -> Mapping[Any, Functions]:
    """For each function that canonical graphs call, the operator that it becomes."""
    return _one_each((each.canonical, each) for operator in operators() for each in operator.functions())


@functools.cache
def module_spellings() -> Mapping[type[nn.Module], Callable[[Any], Operator]]:
    """For each module that computes an operator, how to make the operator from it."""
    return _one_each(each for operator in operators() for each in operator.modules().items())


def _defined_in(file: str) -> type[Operator] | None:
    module = import_module(f"ana_fx.operators.{file}")
    kinds = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    return next((each for each in kinds if issubclass(each, Operator) and not inspect.isabstract(each)), None)


def _loaded(entry: Any) -> type[Operator]:
    found = entry.load()
    if not (inspect.isclass(found) and issubclass(found, Operator)) or inspect.isabstract(found):
        name = getattr(found, "__name__", type(found).__name__)
        raise TypeError(f"entry point {entry.value!r} of {ENTRY_POINTS} is {name}, needed a subclass of Operator")
    return found


def _one_each(pairs: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"two operators are spelt {getattr(key, '__name__', key)}, needed one")
        found[key] = value
    return found
