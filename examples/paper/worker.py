"""One trial in processes of its own: what torchrun starts; epochs leave as lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from examples.paper.training import Epoch
from examples.paper.trial_run import run_trial
from examples.paper.trials import Trial

__all__ = ["run_in_processes"]

_ROOT = Path(__file__).resolve().parents[2]


def run_in_processes(
    trial: Trial, data: Path, checkpoints: Path, *, device: str, num_processes: int, on_epoch: Callable[[Epoch], None]
) -> list[Epoch]:
    """`run_trial` on several processes of this machine, under torchrun.

    Raises:
        RuntimeError: They failed; the message ends with what they wrote.
    """
    order = {"trial": trial.settings, "data": str(data), "checkpoints": str(checkpoints), "device": device}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command = [*torchrun, "-m", "examples.paper.worker", json.dumps(order)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])}
    epochs: list[Epoch] = []
    with (
        tempfile.TemporaryFile(
            "w+", errors="replace"
        ) as complaints,  # a pipe that nobody reads would stop them when full
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            values: dict[str, Any] = json.loads(line)
            if "epochs" in values:
                epochs = [Epoch(**each) for each in values["epochs"]]
            else:
                on_epoch(Epoch(**values))
        if process.wait():
            complaints.seek(0)
            complaint = complaints.read()[-2000:]
            raise RuntimeError(f"{trial.label} failed in its {num_processes} processes: {complaint}")
    return epochs


def main(arguments: Sequence[str]) -> None:
    """Run one trial as a process among others."""
    order = json.loads(arguments[0])
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if order["device"] == "cuda" else "gloo")
    if order["device"] == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        trial = Trial.of(order["trial"])
        paths = Path(order["data"]), Path(order["checkpoints"])
        epochs = run_trial(trial, *paths, device=order["device"], on_epoch=lambda epoch: _write(vars(epoch)))
        if dist.get_rank() == 0:
            _write({"epochs": [vars(epoch) for epoch in epochs]})
    finally:
        dist.destroy_process_group()


def _write(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
