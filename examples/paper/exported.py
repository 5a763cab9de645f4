"""Finished trials as lines of JSON: small, readable, and kept in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from examples.paper.store import Finished
from examples.paper.training import Epoch
from examples.paper.trials import Trial

__all__ = ["read_lines", "write_lines"]

_DIGITS = 4  # of an accuracy: a hundredth of a point is below any spread
_LOSS_DIGITS = 3


def write_lines(trials: Iterable[Finished], path: Path) -> None:
    """Write a line for each trial: its settings, and accuracy, loss and seconds of its epochs."""
    lines = []
    for trial in trials:
        epochs = {
            "accuracy": [round(epoch.accuracy, _DIGITS) for epoch in trial.epochs],
            "loss": [round(epoch.loss, _LOSS_DIGITS) for epoch in trial.epochs],
            "seconds": round(sum(epoch.seconds for epoch in trial.epochs), 1),
        }
        lines.append(json.dumps({**trial.settings, **epochs}, separators=(",", ":"), sort_keys=True))
    path.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")


def read_lines(path: Path) -> list[Finished]:
    """The trials of such a file; each epoch gets its share of the trial's seconds."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        accuracies, losses, seconds = (values.pop(name) for name in ("accuracy", "loss", "seconds"))
        rows = enumerate(zip(losses, accuracies, strict=True))
        epochs = tuple(Epoch(number, *row, seconds / len(losses)) for number, row in rows)
        found.append(Finished(Trial.of(values).settings, {"accuracy": accuracies[-1]}, epochs))
    return found
