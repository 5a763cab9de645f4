"""The trials on a Ray cluster, or on a Ray of this machine: Ray Tune starts, watches and repeats them.

All machines must see the repository, the data and the output folder under the same paths; Ray Tune itself asks that of
the output folder.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import ray
from ray import tune

from examples.paper.engines import Done, OnEpoch, Place, run_at
from examples.paper.training import Epoch
from examples.paper.trials import Trial

__all__ = ["OnRay"]

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class OnRay:
    """Every trial is one of Ray Tune's; one whose worker dies is started again and goes on from its checkpoint.

    Args:
        place: Where each runs.
        address: Of the cluster; None starts a Ray on this machine.
        num_workers: CPUs of that Ray; None takes all.
        max_failures: How often a trial is started again.
    """

    place: Place
    address: str | None = None
    num_workers: int | None = None
    max_failures: int = 3

    def run(self, trials: Sequence[Trial], on_epoch: OnEpoch) -> Iterator[Done]:
        """See `Engine`."""
        environment = {"env_vars": {"PYTHONPATH": str(_ROOT)}}
        local: dict[str, Any] = {} if self.address else {"num_cpus": self.num_workers, "include_dashboard": False}
        ray.init(address=self.address, runtime_env=environment, log_to_driver=False, **local)
        reports: queue.Queue[Any] = queue.Queue()
        try:
            thread = Thread(target=self._tune, args=(trials, reports), daemon=True)
            thread.start()
            while (report := reports.get()) is not None:
                if isinstance(report, Exception):
                    raise report
                trial, values = report
                if "epochs" in values:
                    yield trial, [Epoch(**each) for each in values["epochs"]]
                else:
                    on_epoch(trial, Epoch(**values["epoch"]))
            thread.join()
        finally:
            ray.shutdown()

    def _tune(self, trials: Sequence[Trial], reports: queue.Queue[Any]) -> None:
        try:
            failed = [result.error for result in self._tuner(trials, reports).fit() if result.error is not None]
            if failed:
                reports.put(RuntimeError(f"{len(failed)} of {len(trials)} trials failed, the first with: {failed[0]}"))
        except Exception as error:  # handed to the caller's thread
            reports.put(error)
        reports.put(None)

    def _tuner(self, trials: Sequence[Trial], reports: queue.Queue[Any]) -> tune.Tuner:
        data, checkpoints = self.place.data.resolve(), self.place.checkpoints.resolve()
        place = replace(self.place, data=data, checkpoints=checkpoints)  # a worker stands in another folder
        processes = place.num_processes
        resources = {"cpu": processes * place.num_threads, "gpu": processes if place.device == "cuda" else 0}
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, place=place), resources),
            param_space={"settings": tune.grid_search([trial.settings for trial in trials])},
            run_config=tune.RunConfig(
                name="paper",
                storage_path=str(checkpoints.parent / "ray"),
                failure_config=tune.FailureConfig(max_failures=self.max_failures),
                callbacks=[_Reporter(reports)],
                verbose=0,
            ),
        )


def _trainable(config: dict[str, Any], place: Place) -> None:
    trial = Trial.of(config["settings"])
    epochs = run_at(place, trial, lambda epoch: tune.report({"epoch": vars(epoch)}))
    tune.report({"epochs": [vars(epoch) for epoch in epochs]})


class _Reporter(tune.Callback):  # type: ignore[misc]  # Ray has no annotations where it is not installed
    """Hands on what Ray Tune hears of its trials."""

    def __init__(self, reports: queue.Queue[Any]) -> None:
        self._reports = reports

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy of its settings on disk; a queue cannot be copied."""
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An epoch, or all of them at the end."""
        found = {name: result[name] for name in ("epoch", "epochs") if name in result}
        if found:
            self._reports.put((Trial.of(trial.config["settings"]), found))
