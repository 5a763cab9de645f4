"""Fair timing: processor time on one thread, the candidates taking turns, the best of each counting.

What else the machine does can only add to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["NUM_THREADS", "interleaved", "training_step_of"]

NUM_THREADS = 1  # threads that wait for each other spend processor time


def interleaved(candidates: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """The fewest seconds that each candidate took in any round, after one to warm up."""
    torch.set_num_threads(NUM_THREADS)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    order = random.Random(0)
    for round_number in range(num_rounds + 1):
        for name in order.sample(list(candidates), len(candidates)):  # who comes after a large one finds cold caches
            start = time.process_time()
            candidates[name]()
            if round_number:
                seconds[name].append(time.process_time() - start)
    return {name: min(seen) for name, seen in seconds.items()}


def training_step_of(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One step of plain SGD on a batch, as something to time."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step
