"""Every test and every file of tests starts from the same seeds, a test on one thread.

A test of an extra waits for it, and is counted. With `--no-skips` a skipped test is an error, unless no machine of
ours could run it.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import settings

from ana_fx.operators.operator_list import function_spellings, module_spellings, operator_kinds, operators
from ana_fx.passes.base_pass import checked_passes
from ana_fx.passes.canonical.spellings import spellings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

FROM_PYTHON_3_11 = ("hls4ml", "jupytext", "mkdocs", "qonnx")  # as pyproject.toml says
EXCUSES = ("CUDA", "Python 3.11", "Chromium")  # of skips that no installation by pip would change


@pytest.fixture(autouse=True, scope="session")
def every_pass_is_checked() -> Iterator[None]:
    """Each node is held against the dialects of each pass that a test runs."""
    with checked_passes():
        yield


@pytest.fixture(autouse=True)
def same_start() -> None:
    seed()
    torch.set_num_threads(1)


def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def install(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Enter an object, "module:object", as the entry point of a package, as far as Python can tell."""
    known = (operators, operator_kinds, function_spellings, module_spellings, spellings)

    def enter(name: str, reference: str, group: str = "ana_fx.targets") -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {reference}\n")
        monkeypatch.syspath_prepend(tmp_path)
        for each in known:
            each.cache_clear()

    yield enter
    monkeypatch.undo()
    for each in known:
        each.cache_clear()


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a skip is an error, unless it needs CUDA")


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("extra"):
            if reason := missing(*mark.args):
                item.add_marker(pytest.mark.skip(reason=reason))


def missing(extra: str, package: str) -> str | None:
    """Why a test that needs a package of an extra has to wait, or None."""
    if package in FROM_PYTHON_3_11 and sys.version_info < (3, 11):
        return f"{package} needs Python 3.11"
    return None if find_spec(package) else f"waits for the extra {extra!r}: no package {package}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    return as_error(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    seed()  # what a file draws when it is imported does not depend on the files before
    report = yield
    return as_error(report, collector.config)


def as_error(report, config):
    """The report, as a failure where it is a skip that has no excuse."""
    if not config.getoption("no_skips") or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(excuse in reason for excuse in EXCUSES):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nWith --no-skips only a test that needs {' or '.join(EXCUSES)} may be skipped."
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    yield  # first what pytest says of each
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    reasons = [report.longrepr[2] for report in skipped]
    waiting = Counter(reason.split("'")[1] for reason in reasons if "waits for the extra" in reason)
    if waiting:
        counts = ", ".join(f"{number} for {extra}" for extra, number in sorted(waiting.items()))
        terminalreporter.write_line(f"{waiting.total()} tests wait for an extra ({counts}): make test-extras")
