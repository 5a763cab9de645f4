"""The stages of an annealed training: between two of its boundaries the same layers learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ana_fx.schedule.annealing_range import AnnealingRange

__all__ = ["Stage", "stages_of"]


@dataclass(frozen=True)
class Stage:
    """A part of training in which no annealing range begins or ends.

    Args:
        start: Where it begins, as a fraction of training.
        end: Where it ends.
        first_step: Its first step, counted from 0.
        last_step: The step after its last one.
        annealing: The layers whose noise decays in it, in graph order.
        annealed: The layers whose noise is gone; they learn nothing, whatever the learning rate.
    """

    start: float
    end: float
    first_step: int
    last_step: int
    annealing: tuple[str, ...]
    annealed: tuple[str, ...]


def stages_of(
    ranges: Mapping[str, AnnealingRange], total_steps: int, lasting: Collection[str] = ()
) -> tuple[Stage, ...]:
    """The stages that annealing ranges divide a training into.

    Args:
        ranges: Of each layer whose noise changes, in graph order.
        total_steps: Steps of the whole training.
        lasting: The layers whose noise never vanishes, so that they learn to the end.
    """
    bounds = sorted({0.0, 1.0, *(r.start for r in ranges.values()), *(r.end for r in ranges.values())})
    return tuple(
        Stage(
            start,
            end,
            math.ceil(start * total_steps),
            math.ceil(end * total_steps),
            tuple(path for path, r in ranges.items() if r.start <= start and end <= r.end),
            tuple(path for path, r in ranges.items() if r.end <= start and path not in lasting),
        )
        for start, end in itertools.pairwise(bounds)
    )
