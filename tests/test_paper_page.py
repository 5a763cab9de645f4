"""docs/paper.md names files, symbols and tests: every one exists."""

import re

import pytest

from tests.test_packaging import ROOT

PAGE = ROOT / "docs" / "paper.md"
REFERENCE = re.compile(r"`((?:[\w-]+/)+[\w-]+\.(?:py|md))(?:::(\w+))?`")
FOUND = sorted({(match[1], match[2] or "") for match in REFERENCE.finditer(PAGE.read_text(encoding="utf-8"))})


@pytest.mark.parametrize(("path", "name"), FOUND, ids=["::".join(each) for each in FOUND])
def test_what_the_page_names_exists(path, name):
    text = (ROOT / path).read_text(encoding="utf-8")
    is_there = re.compile(rf"^(def|class) {name}\b|^{name}\b.* = ", re.MULTILINE)
    assert not name or is_there.search(text)


def test_every_row_names_a_test_or_says_that_there_is_none():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| paper |")]
    assert len(rows) > 30
    for row in rows:
        _, held_by = row.rstrip(" |").rsplit(" | ", 1)
        assert "tests/" in held_by or held_by in ("–", "the tests of Theorem 2 above"), row


def test_every_equation_has_a_row():
    text = PAGE.read_text(encoding="utf-8")
    written = {int(number) for number in re.findall(r"\((\d+)\)", text)}
    spans = re.findall(r"\((\d+)\)–\((\d+)\)", text)
    covered = written | {number for first, last in spans for number in range(int(first), int(last) + 1)}
    assert covered >= set(range(1, 22))  # (22) to (29) stand in the proofs of appendix A


def test_the_page_is_linked():
    assert "(paper.md)" in (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
