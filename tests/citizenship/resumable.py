"""A training program that writes a checkpoint after every step and goes on from the last one.

    python -m tests.citizenship.resumable CHECKPOINT STRATEGY

It takes a line from its input before each step, and prints the number of a step whose checkpoint is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.fx import GraphModule

import ana_fx
from tests.citizenship.training import WithNorm, prepared, train

TOTAL = 20


def main(checkpoint: Path, strategy: str, wait: Callable[[], object] = lambda: None) -> GraphModule:
    """Train to the end, from the checkpoint if there is one; `wait` is called before each step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    qat = prepared(WithNorm, strategy=strategy, interval="same_start", mean="dynamic")
    optimizer = torch.optim.Adam(qat.parameters(), lr=0.01)
    annealer = ana_fx.Annealer(qat, TOTAL)
    parts = {"model": qat, "optimizer": optimizer, "annealer": annealer}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
    for step in range(annealer.state_dict()["step"], TOTAL):
        wait()
        train(qat, optimizer, annealer, range(step, step + 1))
        save(checkpoint, {name: part.state_dict() for name, part in parts.items()} | {"rng": torch.get_rng_state()})
        print(step + 1, flush=True)  # noqa: T201  # a program
    return qat


def save(checkpoint: Path, state: dict[str, object]) -> None:
    """The old checkpoint stays until the new one is whole."""
    temporary = checkpoint.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, checkpoint)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.stdin.readline)
