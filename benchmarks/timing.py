"""Fair timing: the candidates taking turns, the best of each counting; what else the machine does can only add to it.

On the CPU, processor time on one thread. On a GPU, the time of some runs between two waits for the GPU: what its
kernels take, or the host that launches them, whichever is more, as in a training that goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["NUM_THREADS", "captured", "interleaved", "training_step_of"]

_RUNS_QUEUED = 4
_FEWEST_ROUNDS, _ENOUGH = 4, 90.0  # seconds

NUM_THREADS = 1  # threads that wait for each other spend processor time


def interleaved(
    candidates: Mapping[str, Callable[[], object]], num_rounds: int, device: str = "cpu"
) -> dict[str, float]:
    """The fewest seconds that each candidate took in any round, after one to warm up; large ones have fewer rounds."""
    torch.set_num_threads(NUM_THREADS)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    seconds_of = _seconds_on_cpu if device == "cpu" else _seconds_on_gpu
    order = random.Random(0)
    start = time.monotonic()
    for round_number in range(num_rounds + 1):
        if round_number > _FEWEST_ROUNDS and time.monotonic() - start > _ENOUGH:
            break
        for name in order.sample(list(candidates), len(candidates)):  # who comes after a large one finds cold caches
            taken = seconds_of(candidates[name])
            if round_number:
                seconds[name].append(taken)
    return {name: min(seen) for name, seen in seconds.items()}


def _seconds_on_cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _seconds_on_gpu(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(_RUNS_QUEUED):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / _RUNS_QUEUED


def training_step_of(model: nn.Module, x: Tensor, *, autocasts: bool = False) -> Callable[[], None]:
    """One step of plain SGD on a batch, as something to time; under bfloat16 autocast if wanted."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocasts):
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step on a GPU as a CUDA graph: replaying it costs the host nothing."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is allocated or compiled once, before anything is captured
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
