"""The three floors are installed as one package, and imports between them point down."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
UPPER_FLOORS = ("passes", "targets")
FLOORS = ("ana_fx", *UPPER_FLOORS)
ONNX = {"onnx", "onnx_ir", "onnxruntime"}


def sources(folder: str) -> list[Path]:
    """All Python files under `folder`, without those behind the links to the upper floors."""
    links = [ROOT / "ana_fx" / floor for floor in UPPER_FLOORS]
    files = sorted((ROOT / folder).rglob("*.py"))
    return [file for file in files if not any(file.is_relative_to(link) for link in links)]


def imported_modules(file: Path) -> Iterator[str]:
    """Full names of what `file` imports, at any depth; `from a import b` gives `a.b`, b may be a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_under(files: list[Path], forbidden: set[str]) -> list[str]:
    """Every import in `files` of a forbidden package or of something inside it, as `file: module`."""
    return [
        f"{file.relative_to(ROOT)}: {module}"
        for file in files
        for module in imported_modules(file)
        if any(f"{module}.".startswith(f"{package}.") for package in forbidden)
    ]


def test_listed_packages_are_the_folders_that_hold_python_files():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {file.parent.relative_to(ROOT).parts for floor in FLOORS for file in sources(floor)}
    names = {".".join(parts if parts[0] == "ana_fx" else ("ana_fx", *parts)) for parts in folders}
    assert names == set(setuptools["packages"])
    assert setuptools["package-dir"] == {f"ana_fx.{floor}": floor for floor in UPPER_FLOORS}


@pytest.mark.parametrize("floor", UPPER_FLOORS)
def test_link_is_relative_and_leads_to_its_floor(floor):
    link = ROOT / "ana_fx" / floor
    # a clone without symbolic links holds a file with the path instead
    path = os.readlink(link) if link.is_symlink() else link.read_text(encoding="utf-8")
    assert path == f"../{floor}"


def test_ground_floor_imports_no_upper_floor():
    front_doors = [ROOT / "ana_fx" / name for name in ("__init__.py", "__main__.py")]
    files = [file for file in sources("ana_fx") if file not in front_doors]
    assert imports_under(files, {"ana_fx.passes", "ana_fx.targets"}) == []


def test_passes_import_no_target():
    assert imports_under(sources("passes"), {"ana_fx.targets"}) == []


def test_onnx_is_imported_in_targets_only():
    assert imports_under(sources("ana_fx") + sources("passes"), ONNX) == []


@pytest.mark.parametrize("folder", [*FLOORS, "tests", "examples", "benchmarks"])
def test_upper_floors_are_imported_by_their_full_name(folder):
    assert imports_under(sources(folder), set(UPPER_FLOORS)) == []


def test_import_of_the_library_leaves_onnx_alone():
    program = f"import sys, ana_fx; print(sorted({ONNX!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_upper_floors_are_found_from_any_folder(tmp_path):
    program = "import ana_fx.passes as p, ana_fx.targets as t; print(p.__file__); print(t.__file__)"
    for folder in (ROOT, tmp_path):
        run = subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True, text=True)
        found = [Path(line).resolve() for line in run.stdout.splitlines()]
        assert found == [ROOT / floor / "__init__.py" for floor in UPPER_FLOORS]


@pytest.mark.slow
def test_wheel_holds_every_file_once_under_one_name(tmp_path):
    checkout = tmp_path / "checkout"  # a build leaves folders behind
    checkout.mkdir()
    for name in FLOORS:
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(checkout)], check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    expected = [
        *(file.relative_to(ROOT).as_posix() for file in sources("ana_fx")),
        *(f"ana_fx/{file.relative_to(ROOT).as_posix()}" for floor in UPPER_FLOORS for file in sources(floor)),
        "ana_fx/py.typed",
    ]
    assert sorted(names) == sorted(expected)


def test_importing_the_package_imports_nothing_that_takes_long():
    """The compiler of torch takes three seconds, networkx one; both are needed later, by some."""
    program = "import sys, torch, ana_fx; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    slow = {"torch._dynamo", "torch._inductor", "sympy", "networkx", "rich", "matplotlib", "onnx"}
    assert slow & set(found.stdout.split()) == set()
