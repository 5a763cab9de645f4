"""A test that waits for an extra is counted; in CI a skip is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

TESTS = """
import pytest

@pytest.mark.extra("consumers", "no_such_package")
def test_of_an_extra():
    assert False

@pytest.mark.skipif(True, reason="needs a CUDA device")
def test_of_a_gpu():
    assert False

@pytest.mark.xfail(reason="open")
def test_of_what_is_known():
    assert False

def test_of_a_whim():
    pytest.skip("no mood")

def test_that_runs():
    pass
"""
MODULE = 'import pytest\npytest.importorskip("no_such_package")\n'


@pytest.fixture
def run(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    root = Path(__file__).parents[1]

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", root / "pyproject.toml", *options]
        settings = {"cwd": root, "capture_output": True, "text": True, "env": {"PYTEST_ADDOPTS": ""}}
        return subprocess.run([*command, "--rootdir", tmp_path, tmp_path], **settings).stdout

    return run


def test_tests_of_an_extra_are_skipped_and_counted(run):
    found = run()
    assert "1 tests wait for an extra (1 for consumers): make test-extras" in found
    assert "1 passed, 4 skipped, 1 xfailed" in found


def test_a_skip_that_needs_no_gpu_is_an_error_with_no_skips(run):
    found = run("--no-skips", "--continue-on-collection-errors")
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in found
    for name in ("test_of_a_whim", "test_of_an_extra", "test_module.py"):
        assert any(line.startswith(("FAILED", "ERROR")) and name in line for line in found.splitlines())


def test_what_python_3_10_cannot_install_is_excused(monkeypatch):
    monkeypatch.setattr(conftest.sys, "version_info", (3, 10))
    assert conftest.missing("consumers", "qonnx") == "qonnx needs Python 3.11"
    assert conftest.missing("consumers", "numpy") is None
