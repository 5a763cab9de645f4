"""The threat model: each of its lines names tests, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE, _, COUNTED = (ROOT / "docs" / "threat_model.md").read_text(encoding="utf-8").partition("\n## What was counted")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.rstrip().endswith("| tests |")]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60])
def test_a_line_of_the_page_is_held_by_tests(row):
    named = _TEST.findall(row)
    assert named
    for file, name in named:
        functions = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        assert name in {each.name for each in functions if isinstance(each, ast.FunctionDef)}


def test_the_page_has_lines():
    assert len(ROWS) > 25
    assert COUNTED
