"""Fair timing: the candidates take turns, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor, nn

__all__ = ["interleaved", "training_step_of"]


def interleaved(candidates: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """The median seconds of each candidate over the rounds, after one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(num_rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(seen) for name, seen in seconds.items()}


def training_step_of(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One step of plain SGD on a batch, as something to time."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step
