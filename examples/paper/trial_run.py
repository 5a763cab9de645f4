"""One trial, from its checkpoint if it has one, to a result."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.fx import GraphModule
from torch.nn.parallel import DistributedDataParallel

import ana_fx
from examples.paper.data import Splits, load
from examples.paper.inputs import Batches, Inputs, inputs_of
from examples.paper.studies import STUDIES
from examples.paper.training import Epoch, Training
from examples.paper.trials import Trial, schedule_of

__all__ = ["run_trial", "training_of"]


def run_trial(
    trial: Trial,
    data: Path,
    checkpoints: Path,
    *,
    device: str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a network as a trial says; a checkpoint after each epoch is where a repetition goes on.

    Inside torchrun all processes share every batch; the first one keeps the checkpoint.

    Args:
        trial: What to run.
        data: Folder or archive of the data set.
        checkpoints: Folder of the checkpoints.
        device: Where to train.
        on_epoch: Told about each epoch; what it raises stops the trial.

    Returns:
        All its epochs.
    """
    training = training_of(trial, data, torch.device(device))
    checkpoint = trial.checkpoint_in(checkpoints)
    if checkpoint.exists():
        training.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    is_first = not dist.is_initialized() or dist.get_rank() == 0

    def keep(epoch: Epoch) -> None:
        if is_first:
            _save(training, checkpoint)
            on_epoch(epoch)

    training.run(keep)
    return training.epochs


def training_of(trial: Trial, data: Path, device: torch.device) -> Training:
    """The training that a trial stands for, at its start."""
    study = STUDIES[trial.study]
    recipe = trial.scale.recipe(study.recipe)
    splits, inputs = _read(trial.study, data, trial.scale.data, trial.fold, trial.num_folds)
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    batches = Batches(splits.train, inputs, recipe.batch_size, trial.seed, device, rank, world_size)
    torch.manual_seed(trial.seed)
    net = study.rearranged(study.network(trial.scale.width, splits.num_classes)).train()
    annealer, schedule = None, schedule_of(trial)
    if schedule is not None:
        seen = batches.measured(splits.train.first(min(1.0, 1024 / len(splits.train))))
        calibration = [x.cpu() for x, _ in seen if len(x) > 1]  # a single example has no batch statistics
        net = ana_fx.prepare(
            net, calibration[0], precision=study.precision, schedule=schedule, calibration=calibration
        ).to(device)
        assert isinstance(net, GraphModule)
        annealer = ana_fx.Annealer(net, recipe.epochs * len(batches))
    net = nn.Sequential(net, study.readout()).to(device)
    if world_size > 1:
        net = DistributedDataParallel(net, find_unused_parameters=True)
    return Training(net, recipe, batches, splits.test, annealer)


@lru_cache(maxsize=2)
def _read(name: str, path: Path, share: float, fold: int | None, num_folds: int) -> tuple[Splits, Inputs]:
    """The data of a trial; the next trial of a process mostly needs the same."""
    splits = load(name, path).limited(share)
    splits = splits if fold is None else splits.fold(fold, num_folds)
    return splits, inputs_of(splits)


def _save(training: Training, checkpoint: Path) -> None:
    """The old checkpoint stays until the new one is whole, and on disk."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    temporary = checkpoint.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(training.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, checkpoint)
