"""The pages of the site as text: their Python blocks, what these print, and their links.

A block is a fence of Python, or a comment `<!-- python … -->` that a reader does not see and that is run all the same.
A fence of `text` right behind a block is what the block prints. A block with a file for a title quotes that file, and
is not run. `python -m tests.docs.pages PAGE` runs a page and writes anew what its blocks print, and its pictures. A
page that says `folder = None` takes small data; `--folder FOLDER` runs it on what lies there, and writes nothing.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?:python(?! title=)|\{\.python\}|\{code-cell\} python)[^\n]*\n(?P<code>.*?)^(?P=indent)```$"
    r"(?:\n\s*?\n(?P=indent)```text\n(?P<output>.*?)^(?P=indent)```$)?"
    r"|^<!-- python\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_QUOTE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_NEEDS_DATA = re.compile(r'^```\{\.python data-needs="[^"]+"\}\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r'^( *)--8<-- "([^"]+)"$', re.MULTILINE)
_FOLDER = re.compile(r"^folder = None\b", re.MULTILINE)
_LINK = re.compile(r"(?<!\\)\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
_WORD = re.compile(r"[A-Za-z_]+")
_PROCESSOR = re.compile(r" on (x86|Arm|WebAssembly)[^;)]*")


@dataclass(frozen=True)
class Block:
    """A Python block: its code, what the page says that it prints, and where both stand on the page."""

    code: str
    output: str | None
    line: int
    start: int
    end: int


def pages() -> list[Path]:
    """Every page of the site, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str) -> Iterator[Block]:
    """The Python blocks of a page, in order."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        code = found["hidden"] or textwrap.dedent(found["code"])
        output = None if found["output"] is None else textwrap.dedent(found["output"])
        yield Block(_INCLUDE.sub(_included, code), output, line, *found.span())


def quotes(text: str) -> list[tuple[Path, str]]:
    """The blocks with a file for a title, which quote that file."""
    return [(ROOT / path, code) for path, code in _QUOTE.findall(text)]


def needing_data(text: str) -> list[str]:
    """The blocks that need data or a device which only a reader has, `{.python data-needs="…"}`; they are not run."""
    return _NEEDS_DATA.findall(text)


def links(text: str) -> list[str]:
    """What a page links to, code left out."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return _LINK.findall(prose)


def run(page: Path, folder: Path | None = None) -> Iterator[tuple[Block, str]]:
    """Run the blocks of a page in one namespace, in a folder of their own; each with what it printed.

    Args:
        page: The page.
        folder: What its `folder = None` shall be.
    """
    module = ModuleType("code_of_a_page")
    sys.modules[module.__name__] = module  # where dataclasses look for their names
    with _empty_folder():
        for block in blocks(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            code = block.code if folder is None else _FOLDER.sub(lambda _: f"folder = {str(folder)!r}", block.code)
            source = "\n" * (block.line - 1) + code  # a traceback tells the line of the page
            with redirect_stdout(printed):
                exec(compile(source, str(page), "exec"), vars(module))
            yield block, printed.getvalue()


def shape_of(text: str) -> list[str]:
    """The words of a text, but for the processor's: numbers, and with them the width of columns, differ on others."""
    return sorted(_WORD.findall(_PROCESSOR.sub("", text)))


def _included(found: re.Match[str]) -> str:
    return textwrap.indent((ROOT / found[2]).read_text(encoding="utf-8").rstrip("\n"), found[1])


@contextmanager
def _empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _write_outputs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = {Path(link).name: page.parent / link for link in links(text) if link.endswith(".png")}
    for block, printed in run(page):
        if block.output is not None:
            trimmed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
            text = text.replace(f"```text\n{block.output}```", f"```text\n{trimmed}```", 1)
        for picture in Path().glob("*.png"):
            if picture.name in shown:
                shutil.copy(picture, shown[picture.name])
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Run pages, and write anew what they print or show it."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs.pages", description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, help="data for the pages; what they print is shown, not written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for page in options.pages:
        if options.folder is None:
            _write_outputs(page.resolve())
            continue
        for _, printed in run(page.resolve(), options.folder.resolve()):
            sys.stdout.write(printed)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
