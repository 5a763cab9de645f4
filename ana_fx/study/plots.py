"""Pictures of schedules, quantizers and convergence; they need matplotlib, the extra `plot`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ana_fx.annealing.annealer import annealing_ranges
from ana_fx.layers.fake_quantize import fake_quantize, quantize
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.levels import Levels
from ana_fx.precision.rounding import Rounding
from ana_fx.prepared.recognize import prepared
from ana_fx.schedule.annealing_range import AnnealingRange
from ana_fx.schedule.degrees import NoiseRule, Strategy
from ana_fx.schedule.noise import NOISES, Noise
from ana_fx.schedule.schedule import Schedule
from ana_fx.study.plot_style import INK, PALE, STYLE, matplotlib_part, shade
from ana_fx.text.wording import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ana_fx.study.convergence import Convergence, LayerConvergence

__all__ = ["plot_convergence", "plot_quantizer", "plot_schedule"]

_WAITING = 0.2  # opacity of noise that does not decay yet, inside its outline
_NUM_POINTS = 1001
_MOST_LEVELS, _FEW_LEVELS = 16, 8  # if there are more than these, so many are drawn
_MOST_CURVES = 10
_NUM_NAMES = 2  # of layer maps at one depth, before the others are only counted
_WIDTHS = (1.0, 0.5, 0.2)  # of the noise, relative to its initial one
_SMALLEST_ERROR = 1e-8


def plot_schedule(qat: nn.Module) -> Figure:
    """Draw when the noise of each depth decays, and mean and standard deviation over time.

    Under a static schedule, whose noise stays, layer maps with the same noise share a bar.

    Args:
        qat: What `prepare` returned.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: `qat` is no module.
        ValueError: It was not prepared, or has no layer map.
    """
    qat = prepared(qat, "plot_schedule()")
    figure_module = matplotlib_part("figure")
    schedule: Schedule = qat.meta["schedule"]
    is_static = schedule.is_static
    ranges = annealing_ranges(qat)
    if is_static:  # then only the widths of the noise differ
        ranges = {path: replace(each, depth=0) for path, each in ranges.items()}
    constants = {path: schedule.constants(each) for path, each in ranges.items()}
    ranges = {
        path: replace(each, start=1.0, end=1.0) if constants[path].is_static else each for path, each in ranges.items()
    }
    names = _names_by_range(ranges)
    is_moving = any(each.mean_rule is NoiseRule.DYNAMIC for each in constants.values())
    heights = [1.0 + 0.45 * len(names), 2.4, *([2.4] if is_moving else [])]
    with matplotlib_part("rc_context")(STYLE):
        figure: Figure = figure_module.Figure(figsize=(8.0, 0.9 + sum(heights)), layout="constrained")
        panels: Sequence[Axes] = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        timing = f"{schedule.interval.value.replace('_', ' ')}, {schedule.power.value}"
        if schedule.function is not None:
            timing = getattr(schedule.function, "__name__", type(schedule.function).__name__)
        families = " and ".join(dict.fromkeys(each.noise.name for each in constants.values()))
        strategies = " and ".join(dict.fromkeys(each.strategy.value for each in constants.values()))
        title = f"{'static' if is_static else timing}, {families} noise, {strategies}"
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        _draw_ranges(panels[0], names, schedule)
        _explain_bars(figure, is_static=is_static)
        for axes, index, label in zip(
            panels[1:], (1, 0), ("standard deviation\n(steps)", "mean (steps)"), strict=False
        ):
            for annealing_range in names:
                values = _noise(schedule, annealing_range, names)[index]
                axes.plot(_times(), values, color=_color(annealing_range.depth, names), linewidth=1.6)
            axes.set_ylabel(label)
        if is_static:
            panels[1].set_ylim(bottom=0.0)
        panels[-1].set_xlabel("fraction of training")
        panels[-1].set_xlim(0.0, 1.0)
    return figure


def plot_quantizer(
    integer_type: IntegerType | str = "ternary",
    *,
    half_width: float = 0.5,
    mean: float = 0.0,
    rounding: Rounding | str = Rounding.NEAREST,
) -> Figure:
    """Draw the staircase of a quantizer, its expectation under each family of noise, and the gradient.

    Of many levels those around zero are drawn. The wider noise is, the darker are expectation and gradient: all of
    `half_width`, a half, a fifth.

    Args:
        integer_type: The levels.
        half_width: Half-width of the noise, in steps.
        mean: Mean of the noise, in steps.
        rounding: Where the thresholds stand.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure_module = matplotlib_part("figure")
    kind = IntegerType.parse(integer_type) if isinstance(integer_type, str) else integer_type
    levels = Levels(kind.qmin, kind.qmax, Rounding(rounding).offset)
    with matplotlib_part("rc_context")(STYLE):
        figure: Figure = figure_module.Figure(figsize=(8.4, 4.4), layout="constrained")
        panels = figure.subplots(2, len(NOISES), sharex=True, sharey="row", height_ratios=[3, 2])
        shown, title = _shown_levels(kind), f"{kind}: staircase, expectation and gradient"
        if shown != (kind.qmin, kind.qmax):
            title += f" (levels {shown[0]} to {shown[1]} of {kind.qmin} to {kind.qmax})"
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        for (above, below), noise in zip(panels.T, NOISES.values(), strict=True):
            _draw_family(above, below, levels, shown, noise, half_width, mean)
            below.set_xlabel("x (steps)")
        panels[0, 0].set_ylabel("level")
        panels[0, 0].yaxis.get_major_locator().set_params(integer=True)
        panels[1, 0].set_ylabel("gradient")
        panels[1, 0].set_ylim(bottom=0.0)
        curves, names = panels[0, 0].get_legend_handles_labels()
        figure.legend(curves, names, loc="outside lower center", ncols=len(names), fontsize=9)
    return figure


def plot_convergence(convergence: Convergence) -> Figure:
    """Draw the error of each layer map's output against the time of the schedule.

    Lines are means, dotted lines maxima; a line ends where its error is zero. Bars on top say when the
    layer map's own noise decays. Of many layer maps, those of neighbouring depths share a line.

    Args:
        convergence: What `ana_fx.study.theory.compositional_convergence` returned.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: It is something else.
        ValueError: The model has no layer map.
    """
    given: object = convergence
    if not hasattr(given, "layers") or not hasattr(given, "progress"):
        raise TypeError(f"plot_convergence() needs what compositional_convergence() returned, got {brief(given)}")
    figure_module = matplotlib_part("figure")
    ranges = {layer.path: layer.annealing_range for layer in convergence.layers}
    names = _names_by_range(ranges)
    with matplotlib_part("rc_context")(STYLE):
        figure: Figure = figure_module.Figure(figsize=(8.0, 4.4 + 0.2 * len(ranges)), layout="constrained")
        heights = [0.6 + 0.24 * len(ranges), 5.0]
        bars, errors = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        figure.suptitle("distance from the network without noise", x=0.02, ha="left", weight="bold")
        for row, layer in enumerate(convergence.layers):
            own, color = layer.annealing_range, _color(layer.annealing_range.depth, names)
            bars.plot([own.start, own.end], [row, row], color=color, linewidth=5.0, solid_capstyle="butt")
        groups = _neighbours(convergence)
        for name, layers in groups.items():
            color = _color(layers[0].annealing_range.depth, names)
            means = [sum(each) / len(layers) for each in zip(*(layer.mean_errors for layer in layers), strict=True)]
            maxima = [max(each) for each in zip(*(layer.max_errors for layer in layers), strict=True)]
            errors.plot(convergence.progress, _visible(means), color=color, linewidth=1.8, label=name)
            errors.plot(convergence.progress, _visible(maxima), color=color, linewidth=1.0, linestyle=":")
        errors.legend(loc="lower left", fontsize=7, ncols=2)
        bars.set_yticks(range(len(ranges)), list(ranges))
        bars.tick_params(axis="y", length=0)
        bars.set_ylim(len(ranges) - 0.4, -0.6)
        bars.spines[["left", "bottom"]].set_visible(False)
        bars.tick_params(axis="x", length=0)
        errors.set_yscale("log")
        errors.set_ylabel("‖noisy − exact‖, mean and maximum (dotted)")
        errors.set_xlabel("fraction of training")
        errors.set_xlim(convergence.progress[0], convergence.progress[-1])
    return figure


def _names_by_range(ranges: dict[str, AnnealingRange]) -> dict[AnnealingRange, list[str]]:
    """The layer maps that are annealed together, from the first depth to the last."""
    if not ranges:
        raise ValueError("nothing to draw: the model has no layer map, so it has no noise")
    names: dict[AnnealingRange, list[str]] = {}
    for path, each in sorted(ranges.items(), key=lambda item: item[1].depth):
        names.setdefault(each, []).append(path)
    return names


def _label(names: list[str]) -> str:
    more = len(names) - _NUM_NAMES
    return ", ".join(names[:_NUM_NAMES]) + (f" + {more}" if more > 0 else "")


def _color(depth: int, names: dict[AnnealingRange, list[str]]) -> tuple[float, ...]:
    return shade(depth / max(1, *(each.depth for each in names)))


def _times() -> list[float]:
    return [step / (_NUM_POINTS - 1) for step in range(_NUM_POINTS)]


def _noise(
    schedule: Schedule, annealing_range: AnnealingRange, names: dict[AnnealingRange, list[str]]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over the whole training."""
    num_depths = 1 + max(each.depth for each in names)
    pairs = [schedule.noise_at(time, annealing_range, num_depths) for time in _times()]
    return [mean for mean, _ in pairs], [std for _, std in pairs]


def _draw_ranges(axes: Axes, names: dict[AnnealingRange, list[str]], schedule: Schedule) -> None:
    """A bar for each range, as thick as its noise is wide: pale while it waits, strong while it decays."""
    widest = max(max(_noise(schedule, each, names)[1]) for each in names)
    times = _times()
    for row, each in enumerate(names):
        thickness = [0.42 * std / widest for std in _noise(schedule, each, names)[1]]
        low, high = [row - half for half in thickness], [row + half for half in thickness]
        color = _color(each.depth, names)
        for is_decaying, opacity, edge in ((False, _WAITING, 0.8), (True, 1.0, 0.0)):
            where = [(each.start <= time) if is_decaying else (time <= each.start) for time in times]
            axes.fill_between(
                times, low, high, where=where, facecolor=(*color[:3], opacity), edgecolor=color, linewidth=edge
            )
        axes.plot([each.start, 1.0], [row, row], color=PALE, linewidth=1.0, zorder=0)
    is_timed = any(each.start < 1.0 for each in names)
    rows = [f"{_label(paths)}   {each.depth}" if is_timed else _label(paths) for each, paths in names.items()]
    axes.set_yticks(range(len(names)), rows)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_ylabel("layer maps by depth" if is_timed else "layer maps")


def _explain_bars(figure: Figure, *, is_static: bool) -> None:
    """A legend of what pale and strong bars are."""
    meanings = {"noise as it began": _WAITING, "decaying": 1.0}
    if is_static:
        del meanings["decaying"]
    patch, to_rgba = matplotlib_part("patches").Patch, matplotlib_part("colors").to_rgba
    patches = [
        patch(facecolor=to_rgba(INK, opacity), edgecolor=INK, linewidth=0.8, label=text)
        for text, opacity in meanings.items()
    ]
    figure.legend(handles=patches, loc="outside upper right", ncols=2, fontsize=7)


def _shown_levels(kind: IntegerType) -> tuple[int, int]:
    """The lowest and the highest level that are drawn."""
    if kind.qmax - kind.qmin < _MOST_LEVELS:
        return kind.qmin, kind.qmax
    lowest = max(kind.qmin, -(_FEW_LEVELS // 2))
    return lowest, lowest + _FEW_LEVELS - 1


def _draw_family(
    above: Axes, below: Axes, levels: Levels, shown: tuple[int, int], noise: Noise, half_width: float, mean: float
) -> None:
    """The staircase and its expectations under one family of noise, and the gradients."""
    x = torch.linspace(shown[0] - 1.0, shown[1] + 1.0, _NUM_POINTS * 2)
    above.set_title(noise.name, loc="left")
    above.plot(x, quantize(x, torch.ones(()), levels), color=INK, linewidth=0.9, label="quantizer")
    for index, share in enumerate(_WIDTHS):
        color = shade(index / (len(_WIDTHS) - 1))
        value, slope = _expectation(x, levels, noise, half_width * share, mean * share)
        label = f"half-width {half_width * share:g}"
        above.plot(x, value, color=color, linewidth=1.8, label=label)
        below.plot(x, slope, color=color, linewidth=1.4)


def _expectation(x: Tensor, levels: Levels, noise: Noise, half_width: float, mean: float) -> tuple[Tensor, Tensor]:
    """The expectation of the quantizer, and its derivative."""
    x = x.clone().requires_grad_()
    value = fake_quantize(
        x,
        torch.ones(()),
        torch.tensor(mean),
        torch.tensor(noise.std_of(half_width)),
        levels=levels,
        noise=noise,
        strategy=Strategy.EXPECTATION,
        num_neighbours=noise.num_neighbours(half_width),
    )
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


def _neighbours(convergence: Convergence) -> dict[str, list[LayerConvergence]]:
    """The layer maps that share a curve, by the name of the curve: each has its own, if they are few."""
    if len(convergence.layers) <= _MOST_CURVES:
        return {layer.path: [layer] for layer in convergence.layers}
    depths = sorted({layer.annealing_range.depth for layer in convergence.layers})
    size = math.ceil(len(depths) / _MOST_CURVES)
    groups = {}
    for some in (depths[first : first + size] for first in range(0, len(depths), size)):
        name = f"depth {some[0]}" if len(some) == 1 else f"depths {some[0]} to {some[-1]}"
        groups[name] = [layer for layer in convergence.layers if layer.annealing_range.depth in some]
    return groups


def _visible(errors: Sequence[float]) -> list[float]:
    """Errors for a logarithmic axis: what is zero to float32 is left out."""
    return [error if error > _SMALLEST_ERROR else math.nan for error in errors]
