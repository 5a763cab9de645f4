"""Where the trials of a grid run: in this process, on the cores of this machine, or on a cluster through Ray Tune."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import torch

from examples.paper.training import Epoch
from examples.paper.trial_run import run_trial
from examples.paper.trials import Trial
from examples.paper.worker import run_in_processes

__all__ = ["Engine", "Here", "OnCores", "Place", "run_at"]

OnEpoch = Callable[[Trial, Epoch], None]
Done = tuple[Trial, list[Epoch]]


@dataclass(frozen=True)
class Place:
    """Where a trial finds its data, keeps its checkpoint, and computes.

    Args:
        data: Folder or archive of the data set.
        checkpoints: Folder of the checkpoints.
        device: "cpu" or "cuda".
        num_processes: Processes of one trial, started with torchrun if there are several.
        num_threads: Threads of each process.
    """

    data: Path
    checkpoints: Path
    device: str = "cpu"
    num_processes: int = 1
    num_threads: int = 1


class Engine(Protocol):
    """Runs trials, in whatever order, and hands each over when it is finished."""

    def run(self, trials: Sequence[Trial], on_epoch: OnEpoch) -> Iterator[Done]:
        """Yield each trial with its epochs; `on_epoch` is told about epochs where they can be seen."""
        ...


def run_at(place: Place, trial: Trial, on_epoch: Callable[[Epoch], None]) -> list[Epoch]:
    """One trial in this process, or in several of its own."""
    torch.set_num_threads(place.num_threads)
    if place.num_processes == 1:
        return run_trial(trial, place.data, place.checkpoints, device=place.device, on_epoch=on_epoch)
    return run_in_processes(
        trial,
        place.data,
        place.checkpoints,
        device=place.device,
        num_processes=place.num_processes,
        on_epoch=on_epoch,
    )


@dataclass(frozen=True)
class Here:
    """One trial after the other in this process."""

    place: Place

    def run(self, trials: Sequence[Trial], on_epoch: OnEpoch) -> Iterator[Done]:
        """See `Engine`."""
        for trial in trials:
            yield trial, run_at(self.place, trial, lambda epoch, trial=trial: on_epoch(trial, epoch))  # type: ignore[misc]  # bound now, not when it is called


@dataclass(frozen=True)
class OnCores:
    """Several trials at a time, each in a process of this machine.

    Args:
        place: Where each runs; with "cuda", worker after worker takes the next device.
        num_workers: Trials at a time.
    """

    place: Place
    num_workers: int

    def run(self, trials: Sequence[Trial], on_epoch: OnEpoch) -> Iterator[Done]:
        """See `Engine`."""
        context = multiprocessing.get_context("spawn")
        seen: Any = context.SimpleQueue()
        listener = Thread(target=_listen, args=(seen, on_epoch), daemon=True)
        listener.start()
        with ProcessPoolExecutor(self.num_workers, context, _start_worker, (seen, self.place.device)) as pool:
            futures = {pool.submit(_run_reporting, self.place, trial): trial for trial in trials}
            for future in as_completed(futures):
                yield futures[future], future.result()
        seen.put(None)
        listener.join()


def _listen(seen: Any, on_epoch: OnEpoch) -> None:
    while (report := seen.get()) is not None:
        on_epoch(*report)


_REPORTS: list[Any] = []  # of a worker process: the way to the process that started it


def _start_worker(seen: Any, device: str) -> None:
    _REPORTS.append(seen)
    if device == "cuda":
        worker = multiprocessing.current_process()._identity[0] - 1
        torch.cuda.set_device(worker % torch.cuda.device_count())


def _run_reporting(place: Place, trial: Trial) -> list[Epoch]:
    return run_at(place, trial, lambda epoch: _REPORTS[0].put((trial, epoch)))
