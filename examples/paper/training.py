"""A training that can be stopped after any epoch and goes on with the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import ana_fx
from examples.paper.data import Examples
from examples.paper.inputs import Batches

__all__ = ["Epoch", "Recipe", "Training", "accuracy_of", "evaluate"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        epochs: Passes over the training set.
        batch_size: Examples of a step.
        learning_rate: Adam's.
        drop: The fraction of training after which the learning rate is a tenth.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    drop: float = 0.8


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: its mean loss, the accuracy after it, and its seconds."""

    number: int
    loss: float
    accuracy: float
    seconds: float


class Stepped(Protocol):
    """What follows the optimiser."""

    def step(self) -> None:
        """Called after each step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on."""
        ...


@dataclass
class Training:
    """A network and everything that changes while it is trained.

    Args:
        net: The network, float or prepared, or wrapped for several processes.
        recipe: How it is trained.
        batches: What it is trained on.
        test: What it is measured on after each epoch.
        annealer: Told after each step of the optimiser, as `ana_fx.Annealer` is.
        distiller: Teaches it.
    """

    net: nn.Module
    recipe: Recipe
    batches: Batches
    test: Examples
    annealer: Stepped | None = None
    distiller: ana_fx.Distiller | None = None
    epochs: list[Epoch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.recipe.learning_rate)
        drop = max(1, round(self.recipe.drop * self.recipe.epochs))
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [drop])

    def run(self, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> None:
        """Train the epochs that are left."""
        while len(self.epochs) < self.recipe.epochs:
            started, number = time.monotonic(), len(self.epochs)
            torch.manual_seed(1_000_003 * self.batches.seed + number)  # of noise that is drawn
            loss = self._run_epoch(number)
            accuracy = accuracy_of(*evaluate(self.net, self.batches, self.test))
            self.epochs.append(Epoch(number, loss, accuracy, time.monotonic() - started))
            on_epoch(self.epochs[-1])

    def _run_epoch(self, number: int) -> float:
        self.net.train()
        loss_sum = torch.zeros((), device=self.batches.device)
        for inputs, labels in self.batches.epoch(number):
            loss_sum += self.step(inputs, labels)
        self.scheduler.step()
        return float(loss_sum) / len(self.batches)

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; the loss before it."""
        logits = self.net(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        if self.distiller is not None:
            loss = self.distiller(logits, inputs, loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.annealer is not None:
            self.annealer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that a training which goes on needs."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "annealer": None if self.annealer is None else self.annealer.state_dict(),
            "epochs": [vars(epoch) for epoch in self.epochs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.annealer is not None:
            self.annealer.load_state_dict(state["annealer"])
        self.epochs = [Epoch(**values) for values in state["epochs"]]


@torch.no_grad()
def evaluate(net: nn.Module, batches: Batches, examples: Examples) -> tuple[Tensor, Tensor]:
    """Logits in eval mode, and the labels."""
    net.eval()
    logits, labels = zip(*((net(x), y) for x, y in batches.measured(examples)), strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """The share of examples whose largest logit stands at the label."""
    return float((logits.argmax(1) == labels).float().mean())
