"""Text of others, shown as it is: names out of models and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["cell", "markup", "plain"]

_LONGEST = 200


def plain(text: str, longest: int = _LONGEST) -> str:
    """Text in which a terminal finds nothing to obey: what cannot be printed as a number, the end cut.

    >>> plain("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def cell(text: str) -> Text:
    """The same for a cell of a table, in which brackets are brackets; lines stay lines."""
    from rich.text import Text

    return Text("\n".join(map(plain, text.split("\n"))))


def markup(text: str) -> str:
    """The same for a title, which has markup."""
    from rich.markup import escape

    return escape(plain(text))
