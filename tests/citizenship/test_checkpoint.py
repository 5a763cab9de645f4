"""A training process that is killed is taken up by another one, and no bit shows it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ana_fx
from ana_fx.schedule.schedule import Strategy
from tests.citizenship import resumable
from tests.citizenship.training import batch_of

ROOT = Path(__file__).parents[2]
KILLED_AFTER = 6  # steps of 20, of which 14 anneal


def start(checkpoint, strategy):
    command = [sys.executable, "-m", "tests.citizenship.resumable", str(checkpoint), strategy]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("strategy", [Strategy.MODE.value, Strategy.RANDOM.value])
def test_training_that_is_killed_and_resumed_ends_as_training_that_is_not(strategy, tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    with start(checkpoint, strategy) as process:
        for step in range(1, KILLED_AFTER + 1):
            let_go_on(process)
            assert int(process.stdout.readline()) == step
        let_go_on(process)
        process.kill()  # SIGKILL, wherever it is in the next step
    assert process.returncode < 0
    reached = torch.load(checkpoint, weights_only=True)["annealer"]["step"]
    assert KILLED_AFTER <= reached <= KILLED_AFTER + 1

    with start(checkpoint, strategy) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    assert [int(line) for line in output.splitlines()] == list(range(reached + 1, resumable.TOTAL + 1))

    whole = resumable.main(tmp_path / "whole.pt", strategy)
    resumed, expected = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "whole.pt"))
    assert resumed["annealer"] == expected["annealer"]
    assert [name for name, x in expected["model"].items() if not torch.equal(x, resumed["model"][name])] == []
    assert torch.equal(resumed["rng"], expected["rng"])
    assert torch.isfinite(ana_fx.convert(whole)(batch_of(-2)[0])).all()
