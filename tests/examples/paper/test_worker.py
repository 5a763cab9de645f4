"""A trial in processes of its own: what they say on both streams is heard."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from examples.paper import worker

TRIAL = SimpleNamespace(settings={}, label="a trial")
TALKS = """
import sys
sys.stderr.write("a warning " * 100_000)
sys.stderr.flush()
print('{"epochs": []}', flush=True)
sys.exit(%d)
"""


def run(monkeypatch, tmp_path, code):
    popen = subprocess.Popen

    def talks(_, **how):
        return popen([sys.executable, "-I", "-c", TALKS % code], **how)

    monkeypatch.setattr(worker.subprocess, "Popen", talks)
    return worker.run_in_processes(TRIAL, tmp_path, tmp_path, device="cpu", num_processes=2, on_epoch=print)


def test_a_megabyte_of_warnings_stops_nothing(monkeypatch, tmp_path):
    """A pipe holds 64 KiB; nobody read it before the end."""
    assert run(monkeypatch, tmp_path, 0) == []


def test_a_failure_tells_the_end_of_what_was_said(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match=r"a trial failed in its 2 processes: .*a warning"):
        run(monkeypatch, tmp_path, 3)
