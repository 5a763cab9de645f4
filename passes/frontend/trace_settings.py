"""What a caller may tell the tracer: each name it gives exists in the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from ana_fx.errors import listing
from ana_fx.text.patterns import listed, unmatched
from ana_fx.text.wording import brief, unknown

__all__ = ["check_concrete_args", "checked_functions", "checked_leaves"]


def check_concrete_args(model: nn.Module, concrete_args: object) -> None:
    """Raise unless `concrete_args` maps arguments of the model's `forward` to values."""
    if not isinstance(concrete_args, Mapping):
        raise TypeError(f"concrete_args is a mapping from arguments of forward to values, got {brief(concrete_args)}")
    parameters = inspect.signature(model.forward).parameters
    names = [name for name, each in parameters.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    for name in concrete_args:
        if name not in names:
            raise ValueError(f"concrete_args: {unknown(f'argument of {type(model).__name__}.forward', name, names)}")


def checked_leaves(model: nn.Module, leaf_modules: Iterable[Any] | str | type) -> tuple[type[nn.Module] | str, ...]:
    """Return the types and patterns of `leaf_modules`. Each pattern matches a module; a type need not occur.

    Raises:
        TypeError: Something else is among them.
        ValueError: A pattern matches no module.
    """
    leaves = (leaf_modules,) if isinstance(leaf_modules, (str, type)) else tuple(leaf_modules)
    for leaf in leaves:
        if not isinstance(leaf, str) and not (isinstance(leaf, type) and issubclass(leaf, nn.Module)):
            raise TypeError(f"leaf_modules holds types of modules and patterns of their paths, got {brief(leaf)}")
    paths = [path for path, _ in model.named_modules() if path]
    problems = unmatched((each for each in leaves if isinstance(each, str)), paths, "module")
    if problems:
        raise ValueError(
            listing(
                f"{len(problems)} of leaf_modules do not fit the model:",
                problems,
                f"its modules are {listed(paths) or 'none but itself'}",
            )
        )
    return leaves


def checked_functions(functions: Iterable[Any] | Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """Return the functions of `wrapped_functions`.

    Raises:
        TypeError: Something else is among them.
    """
    given = (functions,) if callable(functions) else tuple(functions)
    for each in given:
        if not callable(each):
            raise TypeError(f"wrapped_functions holds functions, got {brief(each)}")
    return given
