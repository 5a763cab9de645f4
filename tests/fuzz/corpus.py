"""The corpus: every failure that was found, shrunk, as a file that holds all of it.

A file whose `OPEN` says why is not mended yet, and its `SITE` how it fails; `STRICT = False` that somebody is at it.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tests.fuzz.case import Case
from tests.fuzz.outcome import Outcome

__all__ = ["CORPUS", "corpus_files", "open_sites", "write_case"]

CORPUS = Path(__file__).parent / "corpus"


def corpus_files(folder: Path = CORPUS) -> list[Path]:
    """Its files, in order."""
    return sorted(folder.glob("*.py"))


def open_sites(folder: Path = CORPUS) -> set[tuple[str, str]]:
    """How the cases fail that are known and open; see `Outcome.same`."""
    found = [runpy.run_path(str(path)) for path in corpus_files(folder)]
    return {tuple(each["SITE"]) for each in found if each.get("OPEN")}


def write_case(case: Case, outcome: Outcome, folder: Path = CORPUS) -> Path:
    """Write a failure as a file of the corpus."""
    first_line = (outcome.message.splitlines() or [""])[0].replace("\\", "/").replace('"', "'")[:200]
    slug = re.sub(r"[^a-z0-9]+", "_", outcome.same[1].lower()).strip("_")[:70]
    path = folder / f"{slug}_{case.seed}.py"
    folder.mkdir(parents=True, exist_ok=True)
    text = case.text(f"{outcome.kind}, {outcome.site}: {first_line}")
    path.write_text(f"{text}SITE = {outcome.same!r}\nOPEN = None\n")
    return path
