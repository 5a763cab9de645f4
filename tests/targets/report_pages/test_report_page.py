"""The page is whole HTML that fetches nothing, and shows text as text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ana_fx.targets.report_pages.program_report import ProgramReport, program_facts
from ana_fx.targets.report_pages.report_page import page_of
from tests.models import Residual, example
from tests.programs import converted

VOID = {"meta", "path", "rect"}


class Tags(HTMLParser):
    """Which tags are open, which attributes there are, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def facts() -> ProgramReport:
    return program_facts(converted(Residual), Path("net.html"), (example(Residual),))


def parsed(facts):
    tags = Tags()
    tags.feed(page_of(facts))
    assert tags.open == []
    return tags


def test_every_layer_map_has_a_row_and_a_box(facts):
    text = parsed(facts).text
    for node in facts.nodes:
        assert text.count(node.name) >= (1 if node.row is None else 2)


def test_boxes_lead_to_rows(facts):
    attributes = parsed(facts).attributes
    ids = {value for name, value in attributes if name == "id"}
    links = [value for name, value in attributes if name == "href"]
    assert links
    assert {link.removeprefix("#") for link in links} <= ids


def test_nothing_is_fetched_and_no_script_is_run(facts):
    page = page_of(facts)
    assert re.findall(r"<script|<link|<img|src=|url\((?!#)|@import", page) == []
    assert re.findall(r"https?://[^\"]*", page) == ["http://www.w3.org/2000/svg"]  # a name, which nothing opens


def test_names_are_text_wherever_they_stand(facts):
    evil = "<script>alert('1')</script>"
    nodes = (replace(facts.nodes[0], name=evil), *facts.nodes[1:])
    nodes = tuple(replace(node, reads=tuple(evil if each == "x" else each for each in node.reads)) for node in nodes)
    page = page_of(replace(facts, name=evil, nodes=nodes, notes=(evil,)))
    assert "<script" not in page


def test_a_page_can_be_read_on_a_phone_and_has_one_heading_of_the_first_order(facts):
    page = page_of(facts)
    assert 'name="viewport"' in page
    assert page.count("<h1>") == 1
    assert 'lang="en"' in page


def test_only_what_is_long_is_seen_a_part_at_a_time(facts):
    assert 'class="scroll tall"' not in page_of(facts)
    layer = next(node for node in facts.nodes if node.row is not None)
    nodes = tuple(replace(layer, name=f"layer{index}", reads=()) for index in range(61))
    assert page_of(replace(facts, nodes=nodes)).count('class="scroll tall"') == 2  # the table and the drawing
