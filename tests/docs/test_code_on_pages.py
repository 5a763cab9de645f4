"""Every Python block of the site runs, and prints what the page says, numbers aside."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, needing_data, pages, quotes, run, shape_of

OF_EXTRAS = {"notebooks/keyword_spotter.md": pytest.mark.extra("tflite", "tflite_micro")}
WITH_CODE = [
    pytest.param(page, marks=OF_EXTRAS.get(page.relative_to(DOCS).as_posix() if page.is_relative_to(DOCS) else "", []))
    for page in pages()
    if any(True for _ in blocks(page.read_text(encoding="utf-8")))
]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_and_draws_what_the_page_says(page):
    drawn = set()
    for block, printed in run(page):
        if block.output is not None:
            assert shape_of(printed) == shape_of(block.output), f"{page}:{block.line}"
        drawn |= {picture.name for picture in Path().glob("*.png")}
    if page.parent == DOCS / "notebooks":
        assert set(re.findall(r"pictures/(\w+\.png)", page.read_text(encoding="utf-8"))) <= drawn


def test_a_page_takes_the_folder_that_it_is_given(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nfolder = None  # where data lie\nprint(folder)\n```\n")
    assert [printed for _, printed in run(page)] == ["None\n"]
    assert [printed for _, printed in run(page, tmp_path)] == [f"{tmp_path}\n"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_quotes_stands_in_the_file(page):
    for file, code in quotes(page.read_text(encoding="utf-8")):
        assert code in file.read_text(encoding="utf-8"), f"{page} quotes {file}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_needs_what_a_reader_has_is_python_whose_names_of_ours_are_there(page):
    for code in needing_data(page.read_text(encoding="utf-8")):
        imports = [each for each in ast.parse(code).body if isinstance(each, (ast.Import, ast.ImportFrom))]
        ours = [each for each in imports if ast.unparse(each).split()[1].partition(".")[0] in ("ana_fx", "examples")]
        exec(compile(ast.Module(ours, []), str(page), "exec"), {})


def test_hidden_and_indented_blocks_and_outputs_are_found():
    text = "<!-- python\nx = 1\n-->\n\n??? note\n    ```python\n    print(x)\n    ```\n\n    ```text\n    1\n    ```\n"
    hidden, shown = blocks(text)
    assert (hidden.code, hidden.output) == ("x = 1\n", None)
    assert (shown.line, shown.code, shown.output) == (7, "print(x)\n", "1\n")


def test_an_output_of_another_shape_is_told_apart():
    assert shape_of("0 of 160 outputs differ") == shape_of("0 of 5,990  outputs differ")
    assert shape_of("0 of 160 outputs differ") != shape_of("0 of 160 outputs are equal")
