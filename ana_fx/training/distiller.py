"""Distillation: the float network as the teacher of its quantised copy (Hinton et al. 2015)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from ana_fx.text.wording import brief

__all__ = ["Distiller"]


class Distiller:
    """A loss that pulls class scores towards those of a float teacher.

        loss = (1 − weight) · task_loss + weight · T² · KL(softmax(teacher / T) ‖ softmax(logits / T))

    The factor T² keeps the gradient of the second part as large whatever the temperature. The teacher is copied, runs
    in eval mode and never learns; it stays on the device that it is on now.

    Args:
        teacher: The float model, usually the one that `prepare` was given; its outputs are class scores.
        temperature: T, how much of the order among the wrong classes is taught.
        weight: The share of the teacher, in [0, 1].

    Raises:
        TypeError: The teacher is no module.
        ValueError: A number is out of its range.

    Examples:
        >>> net = nn.Linear(8, 3)
        >>> distiller, x = Distiller(net), torch.rand(5, 8)
        >>> float(distiller(net(x), x, task_loss=torch.zeros(())).detach())
        0.0
    """

    def __init__(self, teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.5) -> None:
        if not isinstance(teacher, nn.Module):
            raise TypeError(f"a teacher is a torch.nn.Module, got {brief(teacher)}")
        if not temperature > 0:
            raise ValueError(f"temperature is positive, got {temperature}")
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"weight lies in [0, 1], got {weight}")
        self._teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.temperature = temperature
        self.weight = weight

    def __call__(self, logits: Tensor, inputs: Any, task_loss: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: What the learning model gave, classes on axis 1.
            inputs: What it was given, a tensor or a tuple of arguments.
            task_loss: The loss without a teacher.
        """
        with torch.no_grad():
            taught = self._teacher(*inputs) if isinstance(inputs, tuple) else self._teacher(inputs)
        if taught.shape != logits.shape:
            raise ValueError(
                f"the teacher gives {tuple(taught.shape)}, the model {tuple(logits.shape)}; needed class scores of the "
                f"same shape; prepare and teach the same network"
            )
        wanted, found = (log_softmax(each.float() / self.temperature, dim=1) for each in (taught, logits))
        num_predictions = logits.numel() // logits.shape[1]
        distance = kl_div(found, wanted, log_target=True, reduction="sum") / num_predictions
        return (1.0 - self.weight) * task_loss + self.weight * self.temperature**2 * distance
