"""The figures of the paper's experiments from the store: accuracy over epochs, a curve and a band a configuration.

The text of the paper was not at hand: which two degrees of freedom each figure sets against each other is our choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter

from examples.paper.store import Finished
from examples.paper.studies import STUDIES, Scale
from examples.training_curve import STYLE

__all__ = ["FIGURES", "Figure", "draw"]

Degrees = Mapping[str, str]
_LINES = ("-", "--", ":", "-.")
_COLOURS = ("#1b7f8c", "#c4572e", "#6b5ca5", "#7d8f2b", "#24313d")
_STUDENT_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # by curves
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Figure:
    """What one figure compares.

    Args:
        number: Its number.
        title: What it shows.
        study: Of which study.
        colour: The degree of freedom that colours tell apart.
        line: The one that kinds of line tell apart.
        shows: Which configurations it draws.
    """

    number: int
    title: str
    study: str
    colour: str
    line: str
    shows: Callable[[Degrees], bool]


def _is_static(degrees: Degrees) -> bool:
    return degrees["mean"] == degrees["variance"] == "static"


def _anneals_variance(degrees: Degrees) -> bool:
    return degrees["mean"] == "static" and degrees["variance"] == "dynamic"


def _is_plain(degrees: Degrees) -> bool:
    return degrees["noise"] == "uniform" and degrees["power"] == "homogeneous"


FIGURES = (
    Figure(1, "Static STEs: noise type and strategy", "cifar10", "noise", "strategy", _is_static),
    Figure(
        2,
        "Decay interval and strategy",
        "cifar10",
        "interval",
        "strategy",
        lambda d: _anneals_variance(d) and _is_plain(d),
    ),
    Figure(
        3,
        "Noise type and strategy, partition",
        "cifar10",
        "noise",
        "strategy",
        lambda d: _anneals_variance(d) and d["interval"] == "partition" and d["power"] == "homogeneous",
    ),
    Figure(
        4,
        "Decay interval and power, expectation",
        "cifar10",
        "interval",
        "power",
        lambda d: _anneals_variance(d) and d["noise"] == "uniform" and d["strategy"] == "expectation",
    ),
    Figure(
        5,
        "What is annealed, mode",
        "cifar10",
        "interval",
        "mean",
        lambda d: d["variance"] == "dynamic" and _is_plain(d) and d["strategy"] == "mode",
    ),
    Figure(
        6,
        "Decay interval and strategy on SVHN",
        "svhn",
        "interval",
        "strategy",
        lambda d: _anneals_variance(d) and _is_plain(d),
    ),
    Figure(
        7,
        "Decay interval and strategy on Speech Commands",
        "speech_commands",
        "interval",
        "strategy",
        lambda d: _anneals_variance(d) and _is_plain(d),
    ),
)


def draw(figure: Figure, trials: Sequence[Finished], folder: Path) -> list[Path]:
    """Draw a figure once for each scale and data set that its study was run at.

    A curve is the mean over folds and seeds, the band its 95 % confidence interval (Student's t).

    Args:
        figure: Which one.
        trials: Finished trials; those of other studies are left out.
        folder: Where the images go.

    Returns:
        The images, none if the store holds nothing that it shows.
    """
    runs: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    for trial in trials:
        degrees = trial.settings["schedule"]
        if trial.settings["study"] == figure.study and (not degrees or figure.shows(degrees)):
            scale = Scale(**trial.settings["scale"])
            runs[scale.describe(STUDIES[figure.study].recipe), trial.settings["data"]].append(trial)
    paths: list[Path] = []
    for (scale_text, data), found in runs.items():
        if any(trial.settings["schedule"] for trial in found):
            name = f"figure{figure.number}" + (f"-{len(paths) + 1}" if paths else "")
            paths.append(folder / f"{name}.png")
            _draw_one(figure, found, f"{data}; {scale_text}", paths[-1])
    return paths


def _draw_one(figure: Figure, trials: Sequence[Finished], scale_text: str, path: Path) -> None:
    groups: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    for trial in trials:
        degrees: Any = trial.settings["schedule"]
        groups[(degrees[figure.colour], degrees[figure.line]) if degrees else ("float", "")].append(trial)
    colours = _assigned([key[0] for key in groups], _COLOURS)
    lines = _assigned([key[1] for key in groups if key[1]], _LINES)
    with rc_context(STYLE):
        canvas = Canvas(figsize=(8.0, 5.0), layout="constrained")
        axes = canvas.subplots()
        for (colour, line), found in sorted(groups.items()):
            label = f"{colour} {line}".strip()
            _curve(axes, found, label, colour=colours[colour], line=lines.get(line, _LINES[0]))
        canvas.suptitle(f"Figure {figure.number}. {figure.title}", x=0.02, ha="left", weight="bold")
        axes.set_title(f"{STUDIES[figure.study].title}. {scale_text}", loc="left", fontsize=8, style="italic")
        axes.set_xlabel("epochs")
        axes.set_ylabel("accuracy on what was held out")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False, fontsize=7, ncols=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, dpi=150)


def _curve(axes: Axes, trials: Sequence[Finished], label: str, *, colour: str, line: str) -> None:
    accuracies = np.array([[epoch.accuracy for epoch in trial.epochs] for trial in trials])
    time, center = np.arange(1, accuracies.shape[1] + 1), accuracies.mean(0)
    axes.plot(time, center, line, color=colour, label=f"{label} ({len(trials)} runs)", linewidth=1.4)
    if len(trials) > 1:
        factor = _STUDENT_95.get(len(trials), _NORMAL_95) / len(trials) ** 0.5
        margin = factor * accuracies.std(0, ddof=1)
        axes.fill_between(
            time, (center - margin).clip(0.0), (center + margin).clip(max=1.0), color=colour, alpha=0.15, linewidth=0
        )


def _assigned(values: Sequence[str], choices: Sequence[str]) -> dict[str, str]:
    return {value: choices[index % len(choices)] for index, value in enumerate(sorted(set(values)))}
