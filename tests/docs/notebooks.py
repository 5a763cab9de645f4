"""Pages as notebooks: `python -m tests.docs.notebooks FOLDER` writes one for each page that holds code."""

import re
import sys
from pathlib import Path

import jupytext

from tests.docs.pages import DOCS, blocks, pages

_FOLDED = re.compile(r'^\?\?\? \w+ "([^"]+)"$', re.MULTILINE)


def notebook_text(page: Path) -> str:
    """A page as Jupytext's Markdown: its blocks are cells, those that it hides too; outputs are left out."""
    text, parts, end = page.read_text(encoding="utf-8"), [], 0
    for block in blocks(text):
        parts += [text[end : block.start], f"```python\n{block.code}```"]
        end = block.end
    prose_and_cells = "".join([*parts, text[end:]])
    return _FOLDED.sub(r"**\1**", re.sub(r"^```python title=.*$", "```py", prose_and_cells, flags=re.MULTILINE))


def main(folder: Path) -> None:
    """Write the notebooks."""
    for page in pages():
        if page.is_relative_to(DOCS) and any(True for _ in blocks(page.read_text(encoding="utf-8"))):
            path = folder / page.relative_to(DOCS).with_suffix(".ipynb")
            path.parent.mkdir(parents=True, exist_ok=True)
            jupytext.write(jupytext.reads(notebook_text(page), fmt="md"), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
