"""A small network with its optimiser and annealer, trained on batches that depend on the step alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx

SHAPE = (1, 6, 6)
NUM_CLASSES = 3
NUM_DEPTHS = 3  # of the networks below
TOTAL = 10


class WithNorm(nn.Sequential):
    """Two layer maps with batch norm and a head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, NUM_CLASSES),
        )


class WithoutNorm(nn.Sequential):
    """As many, without batch norm."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, NUM_CLASSES)
        )


def batch_of(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    """The same inputs and labels at a step, whatever happened before."""
    generator = torch.Generator().manual_seed(step)
    x = torch.rand(size, *SHAPE, generator=generator)
    return x, torch.randint(NUM_CLASSES, (size,), generator=generator)


def prepared(kind: type[nn.Module] = WithNorm, *, is_calibrated: bool = True, **options: Any) -> GraphModule:
    """A network with random weights and the noise of the first step; `options` are the schedule's."""
    calibration = [batch_of(-1)] if is_calibrated else None
    schedule = ana_fx.Schedule(**options)
    qat = ana_fx.prepare(kind(), batch_of(0)[0], precision="int4", schedule=schedule, calibration=calibration)
    ana_fx.Annealer(qat, TOTAL)
    return qat


def train(qat: nn.Module, optimizer: torch.optim.Optimizer, annealer: ana_fx.Annealer, steps: range) -> None:
    """The plain loop."""
    for step in steps:
        x, y = batch_of(step)
        nn.functional.cross_entropy(qat(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        annealer.step()


def trained(qat: GraphModule, num_steps: int = TOTAL, total: int = TOTAL) -> GraphModule:
    """The model after so many steps of `total`."""
    train(qat, torch.optim.Adam(qat.parameters(), lr=0.01), ana_fx.Annealer(qat, total), range(num_steps))
    return qat


def different(found: nn.Module, expected: nn.Module) -> list[str]:
    """Which parameters and buffers of two models differ in a bit."""
    states = found.state_dict(), expected.state_dict()
    assert list(states[0]) == list(states[1])
    return [name for name, tensor in states[1].items() if not torch.equal(states[0][name].to(tensor.device), tensor)]
