"""Where the trials of a grid run: in this process, on the cores of this machine, or on a cluster through Ray Tune."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Protocol

import torch

from examples.paper.training import Epoch
from examples.paper.trial_run import run_trial
from examples.paper.trials import Trial
from examples.paper.worker import run_in_processes

__all__ = ["Engine", "Here", "OnCores", "Place", "run_at"]

OnEpoch = Callable[[Trial, Epoch], None]
Done = tuple[Trial, list[Epoch]]
Reports = Queue[tuple[Trial, Epoch] | None]


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
            yield trial, run_at(self.place, trial, partial(on_epoch, trial))


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
        with (
            context.Manager() as manager,
            ProcessPoolExecutor(self.num_workers, context, _take_device, (self.place.device,)) as pool,
        ):
            reports: Reports = manager.Queue()
            listener = Thread(target=_listen, args=(reports, on_epoch), daemon=True)
            listener.start()
            futures = {pool.submit(_run_reporting, self.place, trial, reports): trial for trial in trials}
            for future in as_completed(futures):
                yield futures[future], future.result()
            reports.put(None)
            listener.join()


def _listen(reports: Reports, on_epoch: OnEpoch) -> None:
    while (report := reports.get()) is not None:
        on_epoch(*report)


def _take_device(device: str) -> None:
    """Worker after worker of this machine takes the next GPU."""
    if device == "cuda":
        worker = multiprocessing.current_process()._identity[0]
        torch.cuda.set_device(worker % torch.cuda.device_count())


def _run_reporting(place: Place, trial: Trial, reports: Reports) -> list[Epoch]:
    return run_at(place, trial, lambda epoch: reports.put((trial, epoch)))
