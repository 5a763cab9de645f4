"""Links and pictures of the pages lead to files that are there; pictures say what they show."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, links, pages

PAGES = pages()
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    found = [link.partition("#")[0] for link in links(page.read_text(encoding="utf-8"))]
    files = [link for link in found if link and "://" not in link and not link.startswith("mailto:")]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_have_a_text_and_pages_one_title(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(r"!\[\s*\]\(", text) == []
    if page.name != "changelog.md":  # which includes another file whole
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_every_page_has_a_place_in_the_navigation():
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]))
    assert listed == {page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)}


def test_files_that_prose_names_are_there():
    named = re.compile(r"`((?:docs|examples|tests|benchmarks)/[\w/.]+)`")
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists() and not Path(name).name.startswith("…")
    ]
    assert missing == []
