"""Figures 1 to 7 of the paper from the store: accuracy over epochs, a curve and a band for each configuration.

Panels, curves, colours and kinds of line are those of the captions. A curve is the mean over the folds, or over the
seeds where the test set is measured on; its band is the 95 % confidence interval (Student's t).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from examples.paper.store import Finished
from examples.paper.studies import STUDIES, Scale
from examples.paper.trials import grid, label_of
from examples.training_curve import STYLE

__all__ = ["FIGURES", "Figure", "Panel", "draw"]

Degrees = Mapping[str, str]
_BLUE, _GREEN, _RED, _YELLOW = "#2563a8", "#2f9e44", "#d1342f", "#b58900"  # each at least 3 to 1 on white
_COLOURS = {
    "noise": {"uniform": _BLUE, "triangular": _GREEN, "normal": _RED, "logistic": _YELLOW},
    "interval": {"same_start": _GREEN, "same_end": _RED, "partition": _YELLOW, "overlapped": _BLUE},
}
_LINES: Mapping[str, Literal["-", ":"]] = {"homogeneous": "-", "progressive": ":"}
_STUDENT_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # by curves
_NORMAL_95 = 1.96
_SCALED = "#a33b20"  # what is said of a run that is smaller than the paper's


@dataclass(frozen=True)
class Panel:
    """One sub-plot: the configurations that have these values."""

    title: str
    values: tuple[tuple[str, str], ...]

    def shows(self, degrees: Degrees) -> bool:
        """Whether a configuration belongs here."""
        return all(degrees[name] == value for name, value in self.values)


@dataclass(frozen=True)
class Figure:
    """What one figure compares.

    Args:
        number: Its number.
        title: What it shows.
        study: Of which study.
        colour: The degree of freedom that colours tell apart: noise or interval. With intervals, the kind of line
            tells the decay power.
        panels: Its sub-plots.
    """

    number: int
    title: str
    study: str
    colour: str
    panels: tuple[Panel, ...]

    def shows(self, degrees: Degrees) -> bool:
        """Whether a configuration belongs into one of the panels."""
        return any(panel.shows(degrees) for panel in self.panels)


def _static(*strategies: str) -> tuple[Panel, ...]:
    rules = (("mean", "static"), ("variance", "static"))
    return tuple(Panel(each, (*rules, ("strategy", each))) for each in strategies)


def _dynamic(noises: Sequence[str], strategies: Sequence[str]) -> tuple[Panel, ...]:
    """A panel for each noise and strategy, named by whichever differs."""
    rules = (("mean", "static"), ("variance", "dynamic"))
    return tuple(
        Panel(noise if len(noises) > 1 else strategy, (*rules, ("noise", noise), ("strategy", strategy)))
        for noise in noises
        for strategy in strategies
    )


_NOISES = ("uniform", "triangular", "normal", "logistic")
_STATIC_TITLE = "static noise of four types"
FIGURES = (
    Figure(1, _STATIC_TITLE, "cifar10", "noise", _static("random", "mode")),
    Figure(2, "dynamic noise, expectation", "cifar10", "interval", _dynamic(_NOISES, ["expectation"])),
    Figure(3, "dynamic uniform noise", "cifar10", "interval", _dynamic(["uniform"], ["random", "mode"])),
    Figure(4, _STATIC_TITLE, "svhn", "noise", _static("random", "mode")),
    Figure(5, "dynamic uniform noise", "svhn", "interval", _dynamic(["uniform"], ["expectation", "random", "mode"])),
    Figure(6, _STATIC_TITLE, "speech_commands", "noise", _static("random", "mode")),
    Figure(
        7,
        "dynamic uniform noise",
        "speech_commands",
        "interval",
        _dynamic(["uniform"], ["expectation", "random", "mode"]),
    ),
)


@dataclass(frozen=True)
class _Conditions:
    """What all curves of one picture have in common."""

    scale: Scale
    data: str
    num_folds: int


def draw(figure: Figure, trials: Sequence[Finished], folder: Path) -> list[Path]:
    """Draw a figure once for each scale, data set and way of measuring that its study was run at.

    Args:
        figure: Which one.
        trials: Finished trials; those of other studies are left out.
        folder: Where the images go.

    Returns:
        The images, none if the store holds nothing that it shows.
    """
    runs: dict[_Conditions, list[Finished]] = defaultdict(list)
    for trial in trials:
        settings = trial.settings
        if settings["study"] == figure.study and settings["schedule"] and figure.shows(settings["schedule"]):
            runs[_Conditions(Scale(**settings["scale"]), settings["data"], settings["num_folds"])].append(trial)
    paths: list[Path] = []
    for conditions, found in runs.items():
        name = f"figure{figure.number}" + (f"-{len(paths) + 1}" if paths else "")
        paths.append(folder / f"{name}.png")
        _draw_one(figure, found, conditions, paths[-1])
    return paths


def _draw_one(figure: Figure, trials: Sequence[Finished], conditions: _Conditions, path: Path) -> None:
    rows, columns = (2, 2) if len(figure.panels) == 4 else (1, len(figure.panels))
    with rc_context(STYLE):
        canvas = Canvas(figsize=(3.3 * columns + 0.4, 2.6 * rows + 1.4), layout="constrained")
        subplots = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for index, (axes, panel) in enumerate(zip(subplots.flat, figure.panels, strict=True)):
            found = [trial for trial in trials if panel.shows(trial.settings["schedule"])]
            _fill(axes, figure, panel, found)
            axes.set_title(f"({'abcd'[index]}) {panel.title}", loc="left", fontsize=9)
        for axes in subplots[-1]:
            axes.set_xlabel("epoch")
        for axes in subplots[:, 0]:
            axes.set_ylabel("held-out accuracy" if conditions.num_folds else "test accuracy")
        _describe(canvas, figure, conditions, trials)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, dpi=130)


def _fill(axes: Axes, figure: Figure, panel: Panel, trials: Sequence[Finished]) -> None:
    """The curves of a panel, and how many of the paper's it holds if these are not all."""
    groups: dict[tuple[str, str], list[Finished]] = defaultdict(list)
    for trial in trials:
        degrees = trial.settings["schedule"]
        line = degrees["power"] if figure.colour == "interval" else "homogeneous"
        groups[degrees[figure.colour], line].append(trial)
    order = list(_COLOURS[figure.colour])
    for (colour, line), found in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        _curve(axes, found, colour=_COLOURS[figure.colour][colour], line=_LINES[line])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    total = _num_curves(figure, panel)
    if len(groups) < total:
        text = f"{len(groups)} of {total} curves were run"
        axes.text(0.98, 0.03, text, transform=axes.transAxes, ha="right", fontsize=7, color=_SCALED, style="italic")


def _num_curves(figure: Figure, panel: Panel) -> int:
    """How many curves the paper has there: those of the study's whole grid."""
    trials = grid(STUDIES[figure.study], Scale(), "", num_folds=0, seeds=1, only={})
    return sum(bool(trial.schedule) and panel.shows(dict(trial.schedule)) for trial in trials)


def _curve(axes: Axes, trials: Sequence[Finished], *, colour: str, line: Literal["-", ":"]) -> None:
    accuracies = np.array([[epoch.accuracy for epoch in trial.epochs] for trial in trials])
    time, center = np.arange(1, accuracies.shape[1] + 1), accuracies.mean(0)
    axes.plot(time, center, line, color=colour, linewidth=1.6 if line == ":" else 1.3)
    if len(trials) > 1:
        factor = _STUDENT_95.get(len(trials), _NORMAL_95) / len(trials) ** 0.5
        margin = factor * accuracies.std(0, ddof=1)
        low, high = (center - margin).clip(0.0), (center + margin).clip(max=1.0)
        axes.fill_between(time, low, high, color=colour, alpha=0.1, linewidth=0)


def _describe(canvas: Canvas, figure: Figure, conditions: _Conditions, trials: Sequence[Finished]) -> None:
    """The title, under which conditions it was measured, and a legend outside the panels."""
    study = STUDIES[figure.study]
    canvas.suptitle(f"Figure {figure.number}. {study.title}: {figure.title}", x=0.01, ha="left", weight="bold")
    is_full = conditions.scale == Scale() and conditions.data == study.name
    text = f"data: {conditions.data}, {conditions.scale.describe(study.recipe)}\n{_repeats(conditions, trials)}"
    colour = STYLE["text.color"] if is_full else _SCALED
    canvas.supxlabel(text, x=0.01, ha="left", fontsize=7, style="italic", color=colour)
    handles = [
        Line2D([], [], color=colour, label=name.replace("_", " ")) for name, colour in _COLOURS[figure.colour].items()
    ]
    if figure.colour == "interval":
        ink = STYLE["text.color"]
        handles += [Line2D([], [], color=ink, linestyle=line, label=name) for name, line in _LINES.items()]
    canvas.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)


def _repeats(conditions: _Conditions, trials: Sequence[Finished]) -> str:
    """How many runs a curve stands for."""
    counts = Counter(label_of(trial.settings["schedule"]) for trial in trials)
    fewest, most = min(counts.values()), max(counts.values())
    runs = f"{most}" if fewest == most else f"{fewest} to {most}"
    what = f"of {conditions.num_folds} folds" if conditions.num_folds else "seeds"
    return f"lines are means, bands 95 % confidence intervals, over {runs} {what}"
