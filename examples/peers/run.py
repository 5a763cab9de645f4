"""Train every method from the same float network on the same batches, export it, and run what was exported."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ana_fx
from examples.paper.data import Splits
from examples.paper.inputs import Batches, inputs_of
from examples.paper.store import Store
from examples.paper.studies import Study
from examples.paper.training import Epoch, Recipe, Training, accuracy_of, evaluate
from examples.peers.method import Candidate, FloatFile, Method, Widths

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """One study on one data set, all methods and seeds.

    Args:
        study: Its network.
        splits: What is trained on and measured on.
        data: What the data set is called.
        width: Divisor of the network's width.
        start: How the float network is trained that all start from.
        recipe: How all are trained from there on.
        store: Where results go; what is in it is not done again.
    """

    study: Study
    splits: Splits
    data: str
    width: int
    start: Recipe
    recipe: Recipe
    store: Store

    def settings(self, method: str, widths: str, seed: int) -> dict[str, Any]:
        """What a result is filed under."""
        numbers = {"start": vars(self.start), "recipe": vars(self.recipe), "width": self.width, "seed": seed}
        return {"study": self.study.name, "data": self.data, "method": method, "precision": widths, **numbers}

    def run_float(self, seed: int, on_epoch: Callable[[Epoch], None]) -> nn.Module:
        """The float network that all methods of a seed start from; the same trained on, as a result."""
        net, path = self._network(seed), self.store.path.with_name(self._start_name(seed))
        if path.exists():
            net.load_state_dict(torch.load(path))
        else:
            Training(net, self.start, self._batches(seed), self.splits.test).run(on_epoch)
            temporary = path.with_suffix(".tmp")
            torch.save(net.state_dict(), temporary)
            os.replace(temporary, path)
        settings = self.settings("float", "float", seed)
        if settings not in self.store:
            longer = self._network(seed)
            longer.load_state_dict(net.state_dict())
            training = Training(longer, self.recipe, self._batches(seed), self.splits.test)
            training.run(on_epoch)
            logits, labels = evaluate(longer, self._batches(seed), self.splits.test)
            self.store.add(settings, {"trained": accuracy_of(logits, labels)}, training.epochs)
        return net

    def run(self, method: Method, widths: Widths, seed: int, net: nn.Module, on_epoch: Callable[[Epoch], None]) -> None:
        """Train, validate, export and run one method, unless that is done."""
        settings = self.settings(method.name, widths.name, seed)
        if settings in self.store:
            return
        batches = self._batches(seed)
        example = next(batches.measured(self.splits.train))[0]
        torch.manual_seed(seed)
        candidate = method.prepare(net, example, widths, self.recipe.epochs * len(batches))
        distiller = ana_fx.Distiller(net) if method.is_taught else None
        training = Training(candidate.net, self.recipe, batches, self.splits.test, candidate.annealer, distiller)
        started = time.monotonic()
        training.run(on_epoch)
        seconds = time.monotonic() - started
        candidate.finish(inputs for inputs, _ in batches.epoch(self.recipe.epochs))
        result = {**self._deploy(candidate, batches), "seconds": seconds}
        self.store.add(settings, result, training.epochs)

    def _deploy(self, candidate: Candidate, batches: Batches) -> dict[str, Any]:
        """Accuracy in training form and as deployed; what keeps it from being deployed, if anything does."""
        validated, labels = evaluate(candidate.net, batches, self.splits.test)
        result: dict[str, Any] = {"trained": accuracy_of(validated, labels), "examples": len(labels)}
        example = next(batches.measured(self.splits.test))[0]
        with tempfile.TemporaryDirectory() as folder:
            try:
                candidate.export(Path(folder) / "network.onnx", example)
                run = FloatFile(Path(folder) / "network.onnx")
            except Exception as error:  # whatever a tool raises is its answer
                return {**result, "refusal": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
            deployed = torch.cat([run(inputs) for inputs, _ in batches.measured(self.splits.test)])
        result["deployed"] = accuracy_of(deployed, labels)
        result["changed"] = int((deployed.argmax(1) != validated.argmax(1)).sum())
        return result

    def _network(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.study.network(self.width, self.splits.num_classes)

    def _batches(self, seed: int) -> Batches:
        return Batches(self.splits.train, inputs_of(self.splits), self.recipe.batch_size, seed)

    def _start_name(self, seed: int) -> str:
        start = self.start
        numbers = f"{start.epochs}x{start.batch_size}-{start.learning_rate:g}"
        return f"start-{self.study.name}-{self.data}-{self.width}-{numbers}-{seed}.pt"
