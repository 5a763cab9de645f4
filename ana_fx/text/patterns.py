"""Patterns of module paths, as precision, schedules and leaf modules take them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

__all__ = ["listed", "matches", "unmatched"]

_MOST = 40  # paths that a message lists


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern of the shell, or lies inside the module that a pattern without stars names.

    >>> [matches(path, "blocks.2") for path in ("blocks.2", "blocks.2.conv", "blocks.20")]
    [True, True, False]
    """
    is_plain = not any(wild in pattern for wild in "*?[")
    return fnmatchcase(path, pattern) or (is_plain and path.startswith(f"{pattern}."))


def unmatched(patterns: Iterable[str], paths: Collection[str], what: str) -> list[str]:
    """A line about each pattern that matches none of the paths, with one that it may mean."""
    return [_line(each, paths, what) for each in patterns if not any(matches(path, each) for path in paths)]


def _line(pattern: str, paths: Collection[str], what: str) -> str:
    inside = f"{pattern}.*"
    is_module = any(fnmatchcase(path, inside) for path in paths)
    close = [inside] if is_module else get_close_matches(pattern, paths, n=1)
    return f"pattern {pattern!r}: it matches no {what}" + (f", did you mean {close[0]!r}?" if close else "")


def listed(paths: Collection[str]) -> str:
    """The paths as a message names them: the first ones, where there are many."""
    names = [repr(path) for path in paths]
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
