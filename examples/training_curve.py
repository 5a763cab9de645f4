"""The picture of a training: accuracy and loss, and under them the noise of every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ana_fx import AnnealingRange, Schedule

__all__ = ["STYLE", "Epoch", "save_training_curve"]

_INK, _PALE, _ACCURACY, _LOSS, _NOISE = "#24313d", "#c9d1d9", "#1b7f8c", "#c4572e", "#6b5ca5"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _PALE,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: its mean training loss, and the test accuracy after it."""

    loss: float
    accuracy: float


def save_training_curve(
    path: Path,
    float_epochs: Sequence[Epoch],
    quantized_epochs: Sequence[Epoch],
    ranges: Mapping[str, AnnealingRange],
    schedule: Schedule,
    *,
    title: str,
) -> None:
    """Draw both phases of a training on one time axis and save them as an image.

    Args:
        path: The image to write.
        float_epochs: The epochs before `prepare`.
        quantized_epochs: The epochs after it, in which noise is annealed.
        ranges: The annealing range of each layer, in graph order.
        schedule: How the noise decays in these ranges.
        title: What stands above it.
    """
    start, end = len(float_epochs), len(float_epochs) + len(quantized_epochs)
    phases = {"float": (0, float_epochs), "quantised, noise annealed": (start, quantized_epochs)}
    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.6 + 0.3 * len(ranges)), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=[8, 5, 1.5 + 1.2 * len(ranges)])
        accuracy, loss, noise = panels
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        for axes in panels:
            axes.axvline(start, color=_INK, linewidth=0.8, linestyle=(0, (1, 2)))
            for each in ranges.values():
                axes.axvline(start + each.end * (end - start), color=_PALE, linewidth=0.6)
        for name, (first, epochs) in phases.items():
            _draw_phase(accuracy, loss, name, first, epochs)
        _draw_noise(noise, ranges, schedule, start, end)
        accuracy.set_ylabel("test accuracy")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
        loss.set_ylabel("training loss")
        noise.set_xlim(0, end)
        noise.set_xlabel("epochs")
        figure.align_ylabels(panels)
        figure.savefig(path, dpi=150)


def _draw_phase(accuracy: Axes, loss: Axes, name: str, first: int, epochs: Sequence[Epoch]) -> None:
    """Both curves of the epochs after the first so many, and what accuracy they end with."""
    time = range(first + 1, first + len(epochs) + 1)
    accuracies = [epoch.accuracy for epoch in epochs]
    accuracy.plot(time, accuracies, color=_ACCURACY, marker=".", clip_on=False)
    loss.semilogy(time, [epoch.loss for epoch in epochs], color=_LOSS, marker=".", clip_on=False)
    accuracy.annotate(
        f"{accuracies[-1]:.1%}",
        (time[-1], accuracies[-1]),
        xytext=(-2, -15),
        textcoords="offset points",
        ha="right",
        color=_ACCURACY,
        weight="bold",
    )
    accuracy.annotate(
        name,
        (first + len(epochs) / 2, 1.0),
        xycoords=accuracy.get_xaxis_transform(),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        style="italic",
    )


def _draw_noise(axes: Axes, ranges: Mapping[str, AnnealingRange], schedule: Schedule, start: int, end: int) -> None:
    """A bar for each layer, as thick as its noise is wide: pale while it waits, strong while it decays."""
    num_depths = 1 + max(each.depth for each in ranges.values())
    progress = np.linspace(0.0, 1.0, 1001)
    time = start + progress * (end - start)
    for row, each in enumerate(ranges.values()):
        std = np.array([schedule.noise_at(moment, each, num_depths)[1] for moment in progress])
        thickness = 0.42 * std / std.max()
        for is_shown, alpha in ((progress <= each.start, 0.25), (progress >= each.start, 1.0)):
            bar = axes.fill_between(time, row - thickness, row + thickness, where=is_shown.tolist())
            bar.set(color=_NOISE, alpha=alpha, linewidth=0)
        axes.plot([start + each.end * (end - start), end], [row, row], color=_PALE, linewidth=1.0)
    axes.text(0.0, 1.0, " bars as thick as\n the noise is wide", style="italic", va="center")
    axes.set_yticks(range(len(ranges)), list(ranges))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(ranges) - 0.4, -0.6)
    axes.set_ylabel("noise of")
