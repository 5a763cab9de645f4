"""What the command line answers: reports on stdout, errors in one line on stderr, both as text that is safe to show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from ana_fx.errors import AnaFxError
from ana_fx.text.plain_text import plain

__all__ = ["errors_in_one_line", "show"]

_LONGEST_LINE = 2000


def show(report: object) -> None:
    """Print a report: in colours where a person reads it, else as plain text."""
    if sys.stdout.isatty() and not isinstance(report, str):
        Console().print(report)
    else:
        typer.echo("\n".join(plain(line, _LONGEST_LINE) for line in str(report).split("\n")))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Write the errors that are foreseen to stderr without a traceback, and end the program with code 1."""
    try:
        yield
    except (AnaFxError, ValueError, TypeError, OSError) as error:
        lines = [plain(line, _LONGEST_LINE) for line in str(error).split("\n")]
        typer.echo("\n".join(["ana-fx: " + lines[0], *lines[1:]]), err=True)
        raise typer.Exit(1) from error
