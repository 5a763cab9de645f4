"""Names of others reach a terminal as text."""

import pytest
from rich.console import Console

from ana_fx.text.plain_text import cell, markup, plain


@pytest.mark.parametrize("text", ["layer.0", "größe", "層", "[/red]", "a b"])
def test_what_can_be_printed_stays(text):
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb", "a\\nb"), ("\u202e", "\\u202e"), ("\r", "\\r"), ("\x9b31m", "\\x9b31m")],
)
def test_what_commands_a_terminal_is_written_out(text, shown):
    assert plain(text) == shown


def test_long_text_is_cut():
    assert len(plain("x" * 10**6)) == 200


def test_brackets_are_no_markup():
    console = Console(no_color=True)
    with console.capture() as capture:
        console.print(cell("[bold]a[/red]"), markup("[b]b[/red]"))
    assert capture.get().strip() == "[bold]a[/red] [b]b[/red]"
