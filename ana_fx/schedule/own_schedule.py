"""A schedule of the user's own: S(ℓ, t), from a layer and a time to mean and width of its noise (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from ana_fx.text.wording import brief

__all__ = ["LayerPosition", "ScheduleFunction", "noise_given", "span_given"]

_LARGEST_MEAN = 4.0  # steps
_NUM_MOMENTS = 256
_NUM_HALVINGS = 40


class LayerPosition(NamedTuple):
    """Where a layer map stands.

    Args:
        path: Its module path.
        depth: Layer maps before it on the longest path that ends in it.
        num_depths: How many depths the network has; L in the paper.
    """

    path: str
    depth: int
    num_depths: int

    def __str__(self) -> str:
        return f"{self.path!r} at depth {self.depth} of {self.num_depths}"


ScheduleFunction = Callable[[LayerPosition, float], tuple[float, float]]


def noise_given(function: ScheduleFunction, layer: LayerPosition, time: float, widest: float) -> tuple[float, float]:
    """Mean and half-width that a function gives, in steps.

    Args:
        function: The schedule.
        layer: The layer map that is asked for.
        time: The fraction of training that is done.
        widest: The largest half-width that it may give.

    Raises:
        TypeError: It gives no pair of numbers.
        ValueError: A number is out of its range.
    """
    given: Any = function(layer, time)
    if not isinstance(given, tuple) or len(given) != 2 or not all(isinstance(each, Real) for each in given):
        found = f"({', '.join(map(brief, given))})" if isinstance(given, tuple) else brief(given)
        raise TypeError(
            f"the schedule's function gave {found} for {layer} at time {time:g}, needed mean and half-width of the "
            f"noise in steps, two numbers such as (0.0, 0.5)"
        )
    mean, half_width = map(float, given)
    if not abs(mean) <= _LARGEST_MEAN:
        raise ValueError(
            f"the schedule's function gave the mean {mean:g} for {layer} at time {time:g}, needed one in "
            f"[-{_LARGEST_MEAN:g}, {_LARGEST_MEAN:g}] steps"
        )
    if not 0.0 <= half_width <= widest:
        raise ValueError(
            f"the schedule's function gave the half-width {half_width:g} for {layer} at time {time:g}, needed one in "
            f"[0, {widest:g}] steps; Schedule(half_width=...) says how wide it may become"
        )
    return mean, half_width


def span_given(function: ScheduleFunction, layer: LayerPosition, widest: float) -> tuple[float, float]:
    """When a layer's noise begins to change, and from when on it is gone; 1 for what never happens.

    The function is asked at 257 times, and between two of them by bisection; what happens in between and is undone at
    the next of these times is not seen.

    Raises:
        TypeError: The function gives no pair of numbers.
        ValueError: A number is out of its range.
    """

    def at(time: float) -> tuple[float, float]:
        return noise_given(function, layer, time, widest)

    times = [moment / _NUM_MOMENTS for moment in range(_NUM_MOMENTS + 1)]
    noise = [at(time) for time in times]
    first_other = next((index for index, each in enumerate(noise) if each != noise[0]), None)
    last_noisy = next((index for index in range(_NUM_MOMENTS, -1, -1) if noise[index] != (0.0, 0.0)), None)
    start = 1.0
    if first_other is not None:
        start, _ = _border(times[first_other - 1], times[first_other], lambda time: at(time) == noise[0])
    end = 0.0 if last_noisy is None else 1.0
    if last_noisy is not None and last_noisy < _NUM_MOMENTS:
        _, end = _border(times[last_noisy], times[last_noisy + 1], lambda time: at(time) != (0.0, 0.0))
    return min(start, end), end


def _border(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Two neighbouring times; something holds at the first and no more at the second."""
    for _ in range(_NUM_HALVINGS):
        middle = 0.5 * (low + high)
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high
