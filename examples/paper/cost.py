"""How long a trial takes, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from examples.paper.training import Training, evaluate
from examples.paper.trial_run import training_of
from examples.paper.trials import Trial

__all__ = ["seconds_of"]


def seconds_of(trial: Trial, data: Path, *, device: str, steps: int) -> float:
    """Seconds of a whole trial: its steps and the evaluation after each epoch; setting up is left out.

    Args:
        trial: A trial.
        data: Folder or archive of the data set.
        device: Where it would run.
        steps: How many steps are timed, after as many that are not.
    """
    training = training_of(trial, data, torch.device(device))
    step, epochs = iter(_steps(training)), training.recipe.epochs
    for _ in range(steps):
        next(step)
    _wait(device)
    started = time.monotonic()
    for _ in range(steps):
        next(step)
    _wait(device)
    of_step = (time.monotonic() - started) / steps
    started = time.monotonic()
    evaluate(training.net, training.batches, training.test)
    return epochs * (of_step * len(training.batches) + time.monotonic() - started)


def _steps(training: Training) -> Iterator[Tensor]:
    """Steps without an end."""
    number = 0
    while True:
        for inputs, labels in training.batches.epoch(number):
            yield training.step(inputs, labels)
        number += 1


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
