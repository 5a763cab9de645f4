"""Files for contributors are well formed and name what there is."""

import re

import pytest
import yaml

from tests.docs.pages import ROOT

YAML = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


def targets_of_make():
    return set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("file", YAML, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_yaml(file):
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


def test_workflows_call_make_targets_that_there_are():
    jobs = "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob(".github/workflows/*.yml"))
    called = set(re.findall(r"run: make ([\w-]+)", jobs))
    assert called
    assert called <= targets_of_make()


def test_the_quick_tests_are_for_every_python_and_both_processors():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix == {"python": ["3.10", "3.11", "3.12", "3.13"], "machine": ["ubuntu-24.04", "ubuntu-24.04-arm"]}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={matrix["python"][0]}"' in project


def test_workflows_may_read_and_nothing_else():
    for file in ROOT.glob(".github/workflows/*.yml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_the_citation_names_the_version_of_the_package_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Spallanzani", "Leonardi", "Benini"]


def test_the_hooks_are_those_of_make_lint():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = " ".join(hook["entry"] for repo in config["repos"] for hook in repo["hooks"])
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f".venv/bin/{tool}" in entries
