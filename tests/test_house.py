"""How the house is built: folders by theme, one level deep, with imports that lead one way."""

import ast
import functools
import re
import sys
from collections import Counter
from pathlib import Path

import networkx as nx
import pytest

from tests.test_packaging import FLOORS, ROOT, imported_modules, sources

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


@pytest.mark.parametrize("floor", FLOORS)
def test_every_file_has_a_test_of_its_name_or_one_that_names_it(floor):
    untested = []
    for file in sources(floor):
        path = file.relative_to(ROOT / floor)
        mirrored = path if floor == "ana_fx" else Path(floor) / path
        has_mirror = (ROOT / "tests" / mirrored.with_name(f"test_{path.name}")).exists()
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


MOST_QUESTIONS = 14
ROOTS = ("Operator", "LayerMap")


def names_in(tree: ast.AST) -> set[str]:
    """The names in an expression, without those of torch.nn."""
    attributes = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "nn"
    ]
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {node.attr for node in attributes}


def operators_and_layer_maps(trees: list[ast.Module]) -> set[str]:
    """The names of the two classes, of all that derive from them, and of tuples that hold any."""
    statements = [statement for tree in trees for statement in tree.body]
    known: set[str] = set(ROOTS)
    while True:
        derived = {
            each.name
            for each in statements
            if isinstance(each, ast.ClassDef) and any(names_in(base) & known for base in each.bases)
        }
        tuples = {
            target.id
            for each in statements
            if isinstance(each, ast.Assign) and isinstance(each.value, ast.Tuple) and names_in(each.value) & known
            for target in each.targets
            if isinstance(target, ast.Name)
        }
        if derived | tuples <= known:
            return known
        known |= derived | tuples


def asks_for_a_type(node: ast.AST, kinds: set[str]) -> bool:
    """Whether an expression is `isinstance(x, Kind)`, `issubclass(x, Kind)` or `type(x) is Kind`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
        return bool(names_in(node.args[1]) & kinds)
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and isinstance(node.left.func, ast.Name):
        return node.left.func.id == "type" and any(names_in(each) & kinds for each in node.comparators)
    return False


def questions(trees: dict[str, ast.Module]) -> list[str]:
    kinds = operators_and_layer_maps(list(trees.values()))
    asked = {
        f"{module}:{node.lineno}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if asks_for_a_type(node, kinds)
    }
    return sorted(asked)


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in files().items()}


def test_operators_and_layer_maps_are_asked_and_not_told_apart_by_type():
    assert len(questions(trees())) <= MOST_QUESTIONS, questions(trees())


def test_a_question_for_the_type_of_an_operator_is_found_however_it_is_written():
    source = """
class Sum(Operator): pass
class Mine(operators.Sum): pass
PAIRS = (Mine, Other)
isinstance(x, Mine)
isinstance(x, (str, PAIRS))
type(x) is Sum
isinstance(x, str) or type(y) is int
isinstance(x, Other)
isinstance(x, nn.Sum)
"""
    assert questions({"m": ast.parse(source)}) == ["m:5", "m:6", "m:7"]


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_few_functions_of_the_targets_take_five_or_more_parameters():
    functions = [
        node
        for module, tree in trees().items()
        if module.startswith("ana_fx.targets.")
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    wide = [function.name for function in functions if num_parameters(function) >= 5]
    assert len(functions) > 500
    assert len(wide) < 0.08 * len(functions), wide
