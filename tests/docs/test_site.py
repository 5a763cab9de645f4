"""The site builds without a warning, fetches nothing, and holds every public name."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ana_fx
from tests.docs.audit import CHROMIUM, NPM, audit
from tests.docs.pages import ROOT

MODULES_TOO = {"ana_fx.describe.describe", "ana_fx.target_registry.targets"}  # `ana_fx.describe` names a module as well

FAULTY = """<html lang="en"><title>Faulty</title><body style="background: white">
<h1>One</h1><h3>Three</h3><p style="color: #aaa">pale</p><img src="pixel.svg"><div style="width: 600px">wide</div>"""
CODE = ("code", "pre", "script", "style")
LEFT = re.compile(r"\*\*|``|\]\(|^#+ |^- |!!!|\?\?\?|--8<--|_\{|\]\[", re.MULTILINE)  # lists begin after an empty line

pytestmark = [pytest.mark.slow, pytest.mark.extra("docs", "mkdocs")]
in_chromium = pytest.mark.skipif(not (CHROMIUM and NPM), reason="needs Chromium and npm")


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
        assert "<blockquote" not in page.read_text(), f"{page}: `Example:` is prose to the site, `Examples:` is not"


class Prose(HTMLParser):
    """The text of a page, code left out."""

    def __init__(self):
        super().__init__()
        self.depth, self.text = 0, ""

    def handle_starttag(self, tag, attrs):
        self.depth += tag in CODE

    def handle_endtag(self, tag):
        self.depth -= tag in CODE

    def handle_data(self, data):
        self.text += "" if self.depth else data


def test_no_markup_is_left_in_the_prose(site):
    for page in site.rglob("*.html"):
        prose = Prose()
        prose.feed(page.read_text().partition("<article")[2].partition("</article>")[0])
        assert LEFT.findall(prose.text) == [], page


def test_pages_fetch_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert [each for each in fetched if "canonical" not in each] == [], page


def test_headings_do_not_skip_a_level(site):
    for page in site.rglob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        levels = [int(level) for level in re.findall(r"<h(\d)[ >]", article)]
        assert all(after - before <= 1 for before, after in zip([0, *levels], levels, strict=False)), page


@in_chromium
def test_no_page_has_a_fault_in_chromium_on_a_desk_or_on_a_phone(site):
    assert {page: faults for page, faults in audit(site).items() if faults} == {}


@in_chromium
def test_faults_are_told(tmp_path):
    (tmp_path / "faulty.html").write_text(FAULTY)
    (tmp_path / "pixel.svg").write_text("no picture")
    told = "\n".join(audit(tmp_path)["faulty.html"])
    for kind in ("heading-order", "color-contrast", "image-alt", "blank picture", "on a phone: 608 pixels wide"):
        assert kind in told
