"""Sentences on a training that ended with noise left, and on a schedule that leaves a layer no time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from ana_fx.graph import layer_maps, quantizers
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.schedule import Schedule

__all__ = ["TrainingRecord", "noise_left", "record_progress", "start_record", "too_short"]

_RECORD = "training_record"
_NAMED = 5


@dataclass
class TrainingRecord:
    """What happened to a prepared model since `prepare`; its copies share it.

    An average of weights is a copy, and may have none of the model's noise and step count.

    Args:
        weights: What `prepare` was given, as one number for each parameter.
        progress: Of its last annealer.
        end: The fraction of training at which the last noise is gone.
    """

    weights: tuple[float, ...]
    end: float
    progress: float = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> TrainingRecord:
        return self


def start_record(gm: GraphModule) -> None:
    """Remember what a model was before any training."""
    ends = [each.annealing_range.end for each in layer_maps(gm).values() if each.annealing_range is not None]
    gm.meta[_RECORD] = TrainingRecord(_weights(gm), max(ends, default=0.0))


def record_progress(gm: GraphModule, progress: float) -> None:
    """Remember how far an annealer has come."""
    gm.meta[_RECORD].progress = progress


def noise_left(qat: GraphModule) -> str | None:
    """What is to be said of the noise that a training left, with the way out; None if there is nothing.

    Nothing is to be said of a model that was not trained, nor of static noise under `mode`, where training and eval
    mode compute the same function.
    """
    schedule: Schedule = qat.meta["schedule"]
    is_random = schedule.strategy is Strategy.RANDOM
    if schedule.is_static:
        return _STATIC_RANDOM if is_random and _is_trained(qat) else None
    noisy = [m for m in layer_maps(qat).values() if any(float(q.mean) or float(q.std) for q in m.quantizers())]
    step, record = int(qat.get_buffer("annealing_step")), qat.meta[_RECORD]
    if not noisy or record.progress >= record.end:
        return None
    if step == 0 and (record.progress > 0 or not _is_trained(qat)):
        return None
    count = f"{len(noisy)} of {len(layer_maps(qat))} layer maps"
    if step == 0:
        found = f"The model was trained, but no noise was annealed: {count} have the noise of the first step; {_STEP}"
    elif record.progress > 0:
        found = (
            f"Annealing is at {100 * record.progress:.3g} %: {count} still have noise after {step:,} steps; {_GO_ON}"
        )
    else:
        found = f"Annealing stopped after {step:,} steps: {count} still have noise; {_GO_ON}"
    return f"{found}; {_RANDOM}" if is_random else found


def too_short(ranges: Mapping[str, AnnealingRange], total_steps: int) -> str | None:
    """What is to be said of annealing ranges into which no training step falls; None if there are none."""
    missed = [
        path
        for path, each in ranges.items()
        if each.start < each.end and math.ceil(each.start * total_steps) == math.ceil(each.end * total_steps)
    ]
    if not missed:
        return None
    shortest = min(each.end - each.start for each in ranges.values() if each.start < each.end)
    names = ", ".join(missed[:_NAMED]) + (", …" if len(missed) > _NAMED else "")
    return (
        f"The annealing ranges of {len(missed)} of {len(ranges)} layer maps hold none of {total_steps:,} training "
        f"steps, so their noise vanishes at once: {names}; needed {int(1 / shortest) + 1:,} steps, or a schedule with "
        f"wider ranges, such as Schedule(interval='same_start') or the static 'lsq'"
    )


_STEP = (
    "make ana_fx.Annealer(qat, total_steps) and call its step() after each optimiser step, or prepare with a static "
    "schedule such as 'lsq', which needs none"
)
_GO_ON = (
    "train on to the end of the annealing, call annealer.step() after each optimiser step, and give Annealer as many "
    "total_steps as the training has"
)
_RANDOM = "strategy 'random' draws this noise in training, eval mode and the program do not have it"
_STATIC_RANDOM = (
    "Strategy 'random' draws noise in training that eval mode and the program do not have, and this static schedule "
    "never takes it away; use variance='dynamic' with an Annealer, or strategy='mode'"
)


def _is_trained(qat: GraphModule) -> bool:
    record: TrainingRecord = qat.meta[_RECORD]
    return _weights(qat) != record.weights


def _weights(gm: GraphModule) -> tuple[float, ...]:
    """A number for each parameter that is no scale; another one after nearly every step of an optimiser."""
    scales = {id(quantizer.scale) for _, quantizer in quantizers(gm)}
    return tuple(float(each.detach().cpu().double().sum()) for each in gm.parameters() if id(each) not in scales)
