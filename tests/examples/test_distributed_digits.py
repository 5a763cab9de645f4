"""The digits are trained on two processes, and what the first one ships is what was trained."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed_digits.py"


def test_two_processes_ship_one_verified_file(tmp_path):
    # --standalone: on a free port of this machine
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(EXAMPLE), "--epochs", "2", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert "digits.onnx: 0 of 5,990 outputs differ" in run.stdout
    assert run.stdout.count("2 processes, accuracy") == 1  # the first process alone speaks
    assert [file.name for file in tmp_path.iterdir()] == ["digits.onnx"]


def test_without_torchrun_it_says_how_to_start_it(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    command = [sys.executable, str(EXAMPLE)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    assert run.returncode == 2
    assert "start it with torchrun --nproc-per-node 2" in run.stderr
    assert "Traceback" not in run.stderr
