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

__all__ = ["TrainingRecord", "decaying_ranges", "noise_left", "record_progress", "start_record", "too_short"]

_RECORD = "training_record"
_NAMED = 5
_HANDFUL = 20  # steps after which a layer that is frozen has hardly learnt
_EARLY = 0.5  # of training, of which the other layers have more


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
    ranges = {path: each.annealing_range for path, each in layer_maps(gm).items() if each.annealing_range is not None}
    ends = [each.end for each in decaying_ranges(ranges, gm.meta["schedule"]).values()]
    gm.meta[_RECORD] = TrainingRecord(_weights(gm), max(ends, default=0.0))


def record_progress(gm: GraphModule, progress: float) -> None:
    """Remember how far an annealer has come."""
    gm.meta[_RECORD].progress = progress


def decaying_ranges(ranges: Mapping[str, AnnealingRange], schedule: Schedule) -> dict[str, AnnealingRange]:
    """Those of the layer maps whose noise changes."""
    return {path: each for path, each in ranges.items() if not schedule.constants(each).is_static}


def noise_left(qat: GraphModule) -> str | None:
    """What is to be said of the noise that a training left, with the way out; None if there is nothing.

    Nothing is to be said of a model that was not trained, nor of static noise under `mode`, where training and eval
    mode compute the same function.
    """
    return _unfinished(qat) or _never_finished(qat)


def _unfinished(qat: GraphModule) -> str | None:
    schedule: Schedule = qat.meta["schedule"]
    decaying = [m for m in layer_maps(qat).values() if not schedule.constants(m.annealing_range).is_static]
    noisy = [m for m in decaying if any(float(q.mean) or float(q.std) for q in m.quantizers())]
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
    is_random = any(q.strategy is Strategy.RANDOM for m in noisy for q in m.quantizers())
    return f"{found}; {_RANDOM}" if is_random else found


def _never_finished(qat: GraphModule) -> str | None:
    """Of noise that is drawn to the end of training."""
    schedule: Schedule = qat.meta["schedule"]
    ranges = {path: each.annealing_range for path, each in layer_maps(qat).items() if each.annealing_range is not None}
    num_depths = 1 + max((each.depth for each in ranges.values()), default=0)
    random = [path for path, each in ranges.items() if schedule.constants(each).strategy is Strategy.RANDOM]
    lasting = [path for path in random if schedule.never_vanishes(ranges[path], num_depths)]
    if not lasting or not _is_trained(qat):
        return None
    return _LASTING_RANDOM.format(_few(lasting))


def _few(paths: list[str]) -> str:
    return ", ".join(paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")


def too_short(ranges: Mapping[str, AnnealingRange], total_steps: int) -> str | None:
    """What is to be said of layers that a training is too short for, with the way out; None if there are none.

    Either no training step falls into an annealing range, or a layer is frozen after a handful of steps.
    """
    missed = [
        path
        for path, each in ranges.items()
        if each.start < each.end and math.ceil(each.start * total_steps) == math.ceil(each.end * total_steps)
    ]
    shortest = min((each.end - each.start for each in ranges.values() if each.start < each.end), default=1.0)
    if missed:
        return (
            f"The annealing ranges of {len(missed)} of {len(ranges)} layer maps hold none of {total_steps:,} training "
            f"steps, so their noise vanishes at once: {_few(missed)}; needed {int(1 / shortest) + 1:,} steps, or a "
            f"schedule with wider ranges, such as Schedule(interval='same_start') or the static 'lsq'"
        )
    frozen = {path: math.ceil(each.end * total_steps) for path, each in ranges.items() if each.end < _EARLY}
    rushed = [path for path, steps in frozen.items() if steps < _HANDFUL]
    if not rushed:
        return None
    needed = math.ceil(round(_HANDFUL / min(ranges[path].end for path in rushed), 6))
    return (
        f"{len(rushed)} of {len(ranges)} layer maps are frozen after {frozen[rushed[0]]} of {total_steps:,} training "
        f"steps, or few more: {_few(rushed)}; needed {needed:,} steps in all, or a schedule that freezes nothing, such "
        f"as the static 'lsq', which is ahead in short trainings"
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
_LASTING_RANDOM = (
    "Strategy 'random' draws noise in training that eval mode and the program do not have, and nothing takes away that "
    "of {}; use variance='dynamic' with an Annealer, or strategy='mode'"
)


def _is_trained(qat: GraphModule) -> bool:
    record: TrainingRecord = qat.meta[_RECORD]
    return _weights(qat) != record.weights


def _weights(gm: GraphModule) -> tuple[float, ...]:
    """A number for each parameter that is no scale; another one after nearly every step of an optimiser."""
    scales = {id(quantizer.scale) for _, quantizer in quantizers(gm)}
    return tuple(float(each.detach().cpu().double().sum()) for each in gm.parameters() if id(each) not in scales)
