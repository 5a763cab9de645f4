"""The site builds without a warning, fetches nothing, and holds every public name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ana_fx
from tests.docs.pages import ROOT

MODULES_TOO = {"ana_fx.describe.describe", "ana_fx.target_registry.targets"}  # `ana_fx.describe` names a module as well

pytestmark = [pytest.mark.slow, pytest.mark.extra("docs", "mkdocs")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def test_public_names_can_be_linked_to(site):
    anchors = set(re.findall(r'id="(ana_fx\.[\w.]+)"', "".join(page.read_text() for page in site.glob("api/*.html"))))
    last = {anchor.rpartition(".")[2] for anchor in anchors if anchor.count(".") == 1 or anchor in MODULES_TOO}
    assert set(ana_fx.__all__) <= last


def test_examples_of_docstrings_are_code_on_the_page(site):
    for page in site.glob("api/*.html"):
        assert "<blockquote" not in page.read_text(), f"{page}: a section `Example:` is prose to Markdown, write `Examples:`"


def test_pages_fetch_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert [each for each in fetched if "canonical" not in each] == [], page


def test_headings_do_not_skip_a_level(site):
    for page in site.rglob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        levels = [int(level) for level in re.findall(r"<h(\d)[ >]", article)]
        assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False)), page
