"""Shrinking: the smallest model and the plainest settings with the same outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.fuzz.case import Case, load_text, renamed
from tests.fuzz.float_model import UnsoundError
from tests.fuzz.outcome import Outcome
from tests.fuzz.run_one import run_one
from tests.fuzz.settings import DEFAULTS

__all__ = ["shrink"]


def shrink(case: Case, outcome: Outcome, *, most_runs: int = 300) -> Case:
    """Take away what can go while the kind and the site of the outcome stay.

    Args:
        case: What failed.
        outcome: How.
        most_runs: After which it is given as it is then.
    """
    tried = {repr(case)}
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(case):
            if repr(candidate) in tried:
                continue
            if len(tried) > most_runs:
                return case
            tried.add(repr(candidate))
            if _outcome(candidate) == outcome.same:
                case, is_smaller = candidate, True
                break
    return case


def _outcome(case: Case) -> tuple[str, str] | None:
    try:
        return run_one(load_text(case)).same
    except (UnsoundError, SyntaxError):
        return None


def _smaller(case: Case) -> Iterator[Case]:
    """Every case that is one change smaller, those with the largest changes first."""
    yield case.without_dead_code()
    for statement in case.statements:  # what comes early needs little
        for name in statement.results:
            yield replace(case, outputs=name).without_dead_code()
    for index in reversed(range(len(case.statements))):
        for name in case.statements[index].reads:
            yield _bypassed(case, index, name)
    yield from _plainer(case)
    for name in list(case.inputs)[1:]:
        statements = tuple(each.reading(name, "x0") for each in case.statements)
        yield replace(case, statements=statements, outputs=renamed(case.outputs, name, "x0")).without_dead_code()
    for name, (shape, kind) in case.inputs.items():
        if kind != "unit":
            yield replace(case, inputs={**case.inputs, name: (shape, "unit")})


def _bypassed(case: Case, index: int, source: str) -> Case:
    """Without a statement: what it reads takes the place of what it makes."""
    statements = [*case.statements[:index], *case.statements[index + 1 :]]
    outputs = case.outputs
    for name in case.statements[index].results:
        statements = [each.reading(name, source) for each in statements]
        outputs = renamed(outputs, name, source)
    return replace(case, statements=tuple(statements), outputs=outputs).without_dead_code()


def _plainer(case: Case) -> Iterator[Case]:
    for key, default in DEFAULTS.items():
        if case.settings.get(key, default) == default:
            continue
        yield replace(case, settings={name: value for name, value in case.settings.items() if name != key})
        value = case.settings[key]
        if isinstance(value, dict):
            for part in value:
                rest = {name: each for name, each in value.items() if name != part}
                yield replace(case, settings={**case.settings, key: rest})
        if isinstance(value, int) and value > 1:
            yield replace(case, settings={**case.settings, key: 1})
    if case.seed:
        yield replace(case, seed=0)
