"""A Ray of two workers runs the grid; a trial whose worker is killed is started again, and nothing finished is lost."""

import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from examples.paper.engines import Place
from examples.paper.store import Store
from examples.paper.studies import STUDIES, Scale
from examples.paper.trials import grid
from tests.examples.small_data import write_archive

pytestmark = [
    pytest.mark.extra("ray", "ray"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray warns of its own plans
    pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc"),
]

ONLY = {"noise": ("uniform",), "strategy": ("mode",), "power": ("homogeneous",), "mean": ("static",)}


def tuned_workers() -> list[int]:
    """The processes of Ray Tune's trials that this process leads to."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, pid = (folder / "cmdline").read_bytes(), int(folder.name)
            if name.startswith(b"ray::ImplicitFunc") and os.getpid() in ancestors(pid):
                found.append(pid)
        except FileNotFoundError:  # it has ended
            continue
    return found


def ancestors(pid: int) -> list[int]:
    status = (Path("/proc") / str(pid) / "stat").read_text()
    parent = int(status.rpartition(")")[2].split()[1])
    return [parent, *ancestors(parent)] if parent > 1 else [parent]


def test_a_killed_workers_trial_is_run_again(tmp_path, monkeypatch):
    from examples.paper.on_ray import OnRay

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a Ray of this machine alone
    data = write_archive(tmp_path / "images.npz")
    trials = list(grid(STUDIES["cifar10"], Scale(width=32, epochs=40 / 500), "x", num_folds=0, seeds=1, only=ONLY))
    place, store = Place(data, tmp_path / "checkpoints"), Store(tmp_path / "results.sqlite")
    killed = []

    def kill_one(trial, epoch):
        if not killed and epoch.number >= 3:
            killed.extend(tuned_workers()[:1])
            os.kill(killed[0], signal.SIGKILL)

    for trial, epochs in OnRay(place, num_workers=2).run(trials, kill_one):
        store.add(trial.settings, {}, epochs)

    assert killed
    finished = store.finished()
    assert len(finished) == len(trials)
    assert all([epoch.number for epoch in trial.epochs] == list(range(40)) for trial in finished)
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (len(trials),)
