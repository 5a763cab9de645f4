"""Pages become notebooks whose cells are the pages' blocks, in order."""

import json

import pytest

from tests.docs.pages import DOCS, blocks

pytestmark = pytest.mark.extra("docs", "jupytext")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    from tests.docs.notebooks import main

    folder = tmp_path_factory.mktemp("notebooks")
    main(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "tutorial",
        "how_to/resume",
        "notebooks/mixed_precision",
        "notebooks/keyword_spotter",
        "notebooks/operator_and_target",
    ],
)
def test_the_cells_are_the_blocks_of_the_page(written, name):
    notebook = json.loads((written / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert cells == [block.code.rstrip("\n") for block in blocks(page)]


def test_every_page_with_code_becomes_a_notebook(written):
    found = {path.relative_to(written).with_suffix("").as_posix() for path in written.rglob("*.ipynb")}
    assert {"tutorial", "migration", "concepts/noise", "notebooks/mixed_precision"} <= found
