"""What is to be run: a trial is one configuration on one fold with one seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ana_fx
from ana_fx.schedule.noise import Noise
from examples.paper.store import key_of
from examples.paper.studies import STUDIES, Scale, Study

__all__ = ["DEGREES", "Trial", "grid", "label_of", "schedule_of"]

DEGREES = ("noise", "strategy", "interval", "power", "mean", "variance")


@dataclass(frozen=True)
class Trial:
    """One training.

    Args:
        study: Name of the study.
        scale: By how much it is smaller than the paper's.
        schedule: The degrees of freedom by name; empty for the float network.
        fold: Which part of the training set is measured on; None trains on all and measures on the test set.
        num_folds: Of how many parts.
        seed: Of weights, batches and noise.
        data: What the data set is called.
    """

    study: str
    scale: Scale
    schedule: tuple[tuple[str, str], ...]
    fold: int | None
    num_folds: int
    seed: int
    data: str

    @property
    def settings(self) -> dict[str, Any]:
        """What its result is filed under; JSON can hold it."""
        return {**asdict(self), "schedule": dict(self.schedule)}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Trial:
        """The trial that has these settings."""
        values = {**settings, "scale": Scale(**settings["scale"]), "schedule": tuple(settings["schedule"].items())}
        return cls(**values)

    def checkpoint_in(self, folder: Path) -> Path:
        """Where it is kept while it is not finished."""
        return folder / f"{key_of(self.settings)}.pt"

    @property
    def label(self) -> str:
        """In a few words."""
        where = "test set" if self.fold is None else f"fold {self.fold + 1} of {self.num_folds}"
        return f"{label_of(dict(self.schedule))}, {where}, seed {self.seed}"


def grid(
    study: Study, scale: Scale, data: str, *, num_folds: int, seeds: int, only: Mapping[str, tuple[str, ...]]
) -> Iterator[Trial]:
    """The trials of a study: every seed and fold of the float network and of each schedule, seed by seed.

    So when it is stopped early, all configurations have as many seeds, but for one.

    Args:
        study: The study.
        scale: By how much it is scaled down.
        data: What the data set is called.
        num_folds: Parts of the cross-validation; 0 trains on all and measures on the test set.
        seeds: How many.
        only: Values to which degrees of freedom are confined.
    """
    chosen = [_degrees(schedule) for schedule in study.schedules()]
    chosen = [each for each in chosen if all(each[name] in values for name, values in only.items())]
    folds: list[int | None] = list(range(num_folds)) or [None]
    for seed in range(seeds):
        for fold in folds:
            for degrees in ({}, *chosen):
                yield Trial(study.name, scale, tuple(degrees.items()), fold, num_folds, seed, data)


def schedule_of(trial: Trial) -> ana_fx.Schedule | None:
    """The schedule of a trial; None for the float network."""
    if not trial.schedule:
        return None
    return replace(ana_fx.Schedule(**dict(trial.schedule)), stop=STUDIES[trial.study].stop)  # type: ignore[arg-type]


def label_of(degrees: Mapping[str, str]) -> str:
    """A configuration in a few words."""
    if not degrees:
        return "float"
    if degrees["mean"] == degrees["variance"] == "static":
        return f"static {degrees['noise']} {degrees['strategy']}"
    decay = "" if degrees["power"] == "homogeneous" else " progressive"
    moving = " and ".join(name for name in ("mean", "variance") if degrees[name] == "dynamic")
    return f"{degrees['interval']} {degrees['strategy']}, {degrees['noise']}, dynamic {moving}{decay}"


def _degrees(schedule: ana_fx.Schedule) -> dict[str, str]:
    degrees = {name: getattr(schedule, name) for name in DEGREES}
    return {name: value.name if isinstance(value, Noise) else value.value for name, value in degrees.items()}
