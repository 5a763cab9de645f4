"""Annealing under Lightning's trainer; needs the extra `lightning`."""

from __future__ import annotations

import copy
import logging
from typing import Any

from torch.fx import GraphModule
from torch.utils.hooks import RemovableHandle

from ana_fx.annealing.annealer import Annealer
from ana_fx.graph import quantizers
from ana_fx.prepared.graph_form import is_prepared

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("ana_fx.lightning needs lightning: pip install 'ana_fx[lightning]'") from error

__all__ = ["AnnealingCallback"]

_LOG = logging.getLogger("ana_fx")
_SANITY = (
    "The sanity check before training validates the network as it trains, on scales of its own batches: no scale is "
    "known yet. prepare(..., calibration=batches) makes them known."
)


class AnnealingCallback(Callback):
    """Anneals the prepared model inside a LightningModule, a step after each step of its optimiser.

    Gradients that are accumulated over batches count as one step. Checkpoints of the trainer hold
    where the annealing is. The trainer's sanity check, a validation before the first training batch, needs no
    `calibration`.

    Args:
        total_steps: Optimiser steps of the whole training; None takes the trainer's own estimate.

    Raises:
        ValueError: The LightningModule does not hold exactly one model from `ana_fx.prepare`, or the
            trainer has no end and `total_steps` is None. Raised when training starts.
    """

    def __init__(self, total_steps: int | None = None) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.annealer: Annealer | None = None
        self._loaded: dict[str, Any] = {}
        self._num_seen = 0
        self._before: dict[str, Any] | None = None  # the state before the sanity check, while it runs
        self._training_mode: RemovableHandle | None = None

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the validation before the first training batch run where no scale is known yet.

        It runs the network as it trains, with scales of the batches that it validates, and says so in the log "ana_fx".
        Afterwards everything is as before, so that the first training batch sets the scales.
        """
        qat = _prepared(pl_module)
        if all(quantizer.is_calibrated for _, quantizer in quantizers(qat)):
            return
        _LOG.info(_SANITY)
        self._before = copy.deepcopy(qat.state_dict())
        self._training_mode = qat.register_forward_pre_hook(lambda module, _: module.train() and None)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what the validation before training left."""
        if self._training_mode is None or self._before is None:
            return
        self._training_mode.remove()
        _prepared(pl_module).load_state_dict(self._before)
        self._before = self._training_mode = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the noise of the first step, or of the step that a checkpoint reached."""
        self.annealer = Annealer(_prepared(pl_module), self.total_steps or _estimated_steps(trainer))
        if self._loaded:
            self.annealer.load_state_dict(self._loaded)
            self._loaded = {}
        self._num_seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the optimiser, which has made a step unless gradients are being accumulated."""
        assert self.annealer is not None
        for _ in range(trainer.global_step - self._num_seen):
            self.annealer.step()
        self._num_seen = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """That of the annealer, for the trainer's checkpoint."""
        return self._loaded if self.annealer is None else self.annealer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the trainer's checkpoint; used when training starts."""
        self._loaded = dict(state_dict)


def _prepared(module: LightningModule) -> GraphModule:
    found = [m for m in module.modules() if isinstance(m, GraphModule) and is_prepared(m)]
    if len(found) != 1:
        raise ValueError(f"{type(module).__name__} holds {len(found)} models from ana_fx.prepare, needed one")
    return found[0]


def _estimated_steps(trainer: Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ValueError("the trainer has no end; give it max_epochs or max_steps, or AnnealingCallback(total_steps)")
    return int(steps)
