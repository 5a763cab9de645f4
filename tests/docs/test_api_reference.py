"""Every public name stands on a page of the reference, and has a docstring that says what it is."""

import inspect
import re

import pytest

import ana_fx
from tests.docs.pages import DOCS

SHOWN = re.findall(
    r"^::: ana_fx\.([\w.]+)$", "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md"))), re.MULTILINE
)
PUBLIC = [getattr(ana_fx, name) for name in ana_fx.__all__]


def test_every_public_name_is_shown_once():
    names = [name.rpartition(".")[2] for name in SHOWN]  # of what has a module's name, the page says the full path
    assert sorted(names) == sorted(ana_fx.__all__)


@pytest.mark.parametrize("name", ana_fx.__all__)
def test_a_public_name_has_a_docstring_of_its_own(name):
    value = getattr(ana_fx, name)
    said = inspect.getdoc(ana_fx.target_registry.targets if name == "targets" else value)
    assert said
    assert not said.startswith(f"{name}("), "a dataclass without a docstring has its signature for one"
    assert said.partition("\n")[0].rstrip().endswith((".", ":", "?")) or "\n" in said


@pytest.mark.parametrize("function", [each for each in PUBLIC if inspect.isfunction(each)], ids=lambda f: f.__name__)
def test_a_function_tells_of_each_argument(function):
    said = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert re.search(rf"\b{name}\b", said), name
