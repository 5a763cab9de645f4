"""The annealer: from a training step to the noise of every quantizer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from ana_fx.annealing.annealing_notes import decaying_ranges, record_progress, too_short
from ana_fx.annealing.freezing import set_phases
from ana_fx.annealing.stages import Stage, stages_of
from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import LayerMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.prepared.graph_form import is_program
from ana_fx.prepared.recognize import prepared, prepared_or_program
from ana_fx.schedule.schedule import AnnealingRange, Schedule
from ana_fx.text.wording import brief
from ana_fx.training.compiled import renew_code

__all__ = ["Annealer", "annealing_ranges", "noise_at", "quantizer_ranges", "set_noise"]

_LOG = logging.getLogger("ana_fx")
_STAGES_COMPILED = 4  # at most, by one code object; of the eight compilations that torch allows some are eval mode's


def annealing_ranges(qat: nn.Module) -> dict[str, AnnealingRange]:
    """Depth and annealing range of each layer map, keys in graph order.

    Args:
        qat: What `prepare` returned, inside `DataParallel` and the like too, or what `convert` made of it.

    Raises:
        TypeError: `qat` is no module.
        ValueError: It was not prepared.
    """
    gm = prepared_or_program(qat, "annealing_ranges()")
    if is_program(gm):
        return dict(gm.meta["annealing_ranges"])
    ranges = {}
    for path, layer_map in layer_maps(gm).items():
        assert layer_map.annealing_range is not None
        ranges[path] = layer_map.annealing_range
    return ranges


class Annealer:
    """Anneals the noise of a prepared model; call `step()` once after each optimiser step.

    It behaves like a `torch.optim.lr_scheduler`. Its count lives in the model's state, so that a
    model which is saved and loaded goes on where it was.

    Args:
        qat: What `prepare` returned, inside `DistributedDataParallel`, `torch.compile` and the like too.
        total_steps: Steps of the whole training, of which the schedule's ranges are fractions.

    Raises:
        TypeError: `qat` is no module, or `total_steps` no whole number.
        ValueError: `total_steps` is not positive, or `qat` was not prepared, or is an average of models.
    """

    def __init__(self, qat: nn.Module, total_steps: int) -> None:
        if isinstance(qat, AveragedModel):
            raise ValueError("Annealer() needs the model that is trained, got an AveragedModel of it; give that model")
        self._qat = prepared(qat, "Annealer()")
        _check_steps(total_steps)
        self._schedule: Schedule = self._qat.meta["schedule"]
        self._layer_maps: list[LayerMap] = list(layer_maps(self._qat).values())
        self._ranges = quantizer_ranges(self._layer_maps)
        self._distinct_ranges = frozenset(self._ranges.values())
        self._written: dict[AnnealingRange, tuple[float, float]] = {}
        self._seen: tuple[int, int] | None = None
        self._annealed: set[AnnealingRange] | None = None
        self._num_stages = 0
        self._count = 0
        self.total_steps = total_steps
        self._warn_if_too_short()
        self._read()
        self._apply()

    def __repr__(self) -> str:
        return f"Annealer(step {self._count} of {self.total_steps}, {100 * self.progress:.3g} %)"

    @property
    def progress(self) -> float:
        """The fraction of training that is done, in [0, 1]."""
        self._read()
        return min(1.0, self._count / self.total_steps)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the annealing, from which to place drops of the learning rate.

        A layer whose noise is gone learns nothing any more, so a drop helps those alone that are not yet `annealed` in
        the stage it falls into. Most layers profit from a drop before their own range ends.
        """
        ranges = annealing_ranges(self._qat)
        num_depths = 1 + max((each.depth for each in ranges.values()), default=0)
        lasting = {path for path, each in ranges.items() if self._schedule.never_vanishes(each, num_depths)}
        return stages_of(decaying_ranges(ranges, self._schedule), self.total_steps, lasting)

    def step(self) -> None:
        """Count one step and set the noise of every quantizer; layer maps without noise stop learning."""
        self._read()
        self._count += 1
        self._apply()

    def state_dict(self) -> dict[str, int]:
        """The steps done and the steps of the whole training."""
        self._read()
        return {"step": self._count, "total_steps": self.total_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: It is not the state of an annealer.
        """
        if not {"step", "total_steps"} <= set(state):
            raise ValueError(
                f"needed what Annealer.state_dict() gave, with 'step' and 'total_steps', got {brief(state)}"
            )
        self._count, self.total_steps = int(state["step"]), int(state["total_steps"])
        self._written.clear()
        self._apply()

    def _read(self) -> None:
        """Take the count from the model if something else wrote it, as loading a checkpoint does.

        The version counter tells without waiting for the device.
        """
        buffer = self._qat.get_buffer("annealing_step")
        if self._seen != (id(buffer), buffer._version):
            self._count = int(buffer)
            self._written.clear()
            self._annealed = None

    def _warn_if_too_short(self) -> None:
        note = too_short(decaying_ranges(annealing_ranges(self._qat), self._schedule), self.total_steps)
        if note is not None:
            _LOG.warning(note)

    def _apply(self) -> None:
        progress = min(1.0, self._count / self.total_steps)
        noise = noise_at(progress, self._schedule, self._distinct_ranges)
        set_noise(self._ranges, noise, self._written)
        self._written = noise
        annealed = {r for r, levels in noise.items() if levels == (0.0, 0.0)}
        if annealed != self._annealed:  # once for each stage of the annealing
            self._annealed = annealed
            set_phases(self._qat, {m for m in self._layer_maps if m.annealing_range in annealed})
            self._num_stages += 1
            if self._num_stages % _STAGES_COMPILED == 0:
                renew_code(self._qat)
        record_progress(self._qat, progress)
        buffer = self._qat.get_buffer("annealing_step")
        buffer.fill_(self._count)
        self._seen = (id(buffer), buffer._version)


def _check_steps(total_steps: object) -> None:
    if not isinstance(total_steps, Integral):
        raise TypeError(f"total_steps is a whole number, epochs * len(loader) say, got {brief(total_steps)}")
    if int(total_steps) <= 0:
        raise ValueError(f"total_steps is positive, got {total_steps}")


def quantizer_ranges(layer_maps: list[LayerMap]) -> dict[Quantizer, AnnealingRange]:
    """The range of each quantizer; a shared weight's is that of the deepest layer map that uses it."""
    ranges: dict[Quantizer, AnnealingRange] = {}
    for layer_map in layer_maps:
        assert layer_map.annealing_range is not None
        for quantizer in layer_map.quantizers():
            known = ranges.setdefault(quantizer, layer_map.annealing_range)
            if layer_map.annealing_range.depth > known.depth:
                ranges[quantizer] = layer_map.annealing_range
    return ranges


def noise_at(
    progress: float, schedule: Schedule, ranges: Iterable[AnnealingRange]
) -> dict[AnnealingRange, tuple[float, float]]:
    """Mean and standard deviation, in steps, that a schedule gives each annealing range at a time."""
    distinct = frozenset(ranges)
    num_depths = 1 + max((r.depth for r in distinct), default=0)
    return {r: schedule.noise_at(progress, r, num_depths) for r in distinct}


def set_noise(
    ranges: dict[Quantizer, AnnealingRange],
    noise: dict[AnnealingRange, tuple[float, float]],
    written: dict[AnnealingRange, tuple[float, float]] | None = None,
) -> None:
    """Write the noise of each quantizer's range, unless it is what was `written` there before."""
    for quantizer, annealing_range in ranges.items():
        mean, std = noise[annealing_range]
        if written is None or written.get(annealing_range) != (mean, std):
            quantizer.mean.fill_(mean)
            quantizer.std.fill_(std)
