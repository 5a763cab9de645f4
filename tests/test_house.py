"""How the house is built: folders by theme, one level deep, with imports that lead one way."""

import ast
import functools
import re
import sys
from collections import Counter
from pathlib import Path

import networkx as nx
import pytest

from tests.test_packaging import FLOORS, ROOT, UPPER_FLOORS, imported_modules, sources

DOORS = ("__init__", "__main__")  # they lead to other floors


def files() -> dict[str, Path]:
    """The file of each module, by the module's full name."""
    found = {}
    for floor in FLOORS:
        for file in sources(floor):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts if floor == "ana_fx" else ("ana_fx", *parts))] = file
    return found


def room(module: str) -> str:
    """The folder of a module, or the module itself where it stands in none."""
    parts = module.split(".")
    depth = 3 if parts[1] in FLOORS else 2
    return ".".join(parts[:depth])


def folders() -> list[Path]:
    return sorted({file.parent for file in files().values()})


def test_folders_are_one_level_deep():
    assert all(len(folder.relative_to(ROOT).parts) <= 2 for folder in folders())


@pytest.mark.parametrize("folder", [f for f in folders() if len(f.relative_to(ROOT).parts) == 2], ids=lambda f: f.name)
def test_a_folder_says_in_one_sentence_what_it_holds(folder):
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    sentence = ast.get_docstring(tree)
    assert sentence is not None
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")


@functools.cache
def docstrings_of_tests() -> str:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return "\n".join(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for file in files)


@pytest.mark.parametrize("floor", UPPER_FLOORS)
def test_every_file_has_a_test_of_its_name_or_one_that_names_it(floor):
    untested = []
    for file in sources(floor):
        path = file.relative_to(ROOT / floor)
        has_mirror = (ROOT / "tests" / floor / path.with_name(f"test_{path.name}")).exists()
        is_named = re.search(rf"(?<!\w){re.escape(path.as_posix())}", docstrings_of_tests()) is not None
        if file.stem not in DOORS and not has_mirror and not is_named:
            untested.append(path.as_posix())
    assert untested == []


def test_no_two_files_have_one_name():
    names = Counter(file.stem for file in files().values() if file.stem not in DOORS)
    assert [name for name, count in names.items() if count > 1] == []


def test_nothing_is_named_after_the_standard_library():
    names = {file.stem for file in files().values()} | {folder.name for folder in folders()}
    assert names & sys.stdlib_module_names == set()


def test_imports_between_folders_lead_one_way():
    modules = files()
    arrows: nx.DiGraph[str] = nx.DiGraph()
    for module, file in modules.items():
        if file.stem in DOORS:
            continue
        for imported in imported_modules(file):
            name = imported if imported in modules else imported.rpartition(".")[0]
            if name in modules and room(name) != room(module):
                arrows.add_edge(room(module), room(name))
    assert [sorted(circle) for circle in nx.strongly_connected_components(arrows) if len(circle) > 1] == []
