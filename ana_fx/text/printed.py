"""What reports are as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["printed"]


def printed(report: object, console: Console) -> str:
    """What a console prints of a report, without blanks at the ends of lines."""
    with console.capture() as capture:
        console.print(report)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
