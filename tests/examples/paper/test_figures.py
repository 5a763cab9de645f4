"""Pictures hold the panels, curves, colours and lines of the paper's captions, say their scale, and have bands."""

import json
from collections import Counter
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from examples.paper.exported import read_lines, write_lines
from examples.paper.figures import FIGURES, draw
from examples.paper.ranking import rankings
from examples.paper.store import Finished
from examples.paper.studies import STUDIES, Scale
from examples.paper.training import Epoch
from examples.paper.trials import grid
from tests.contrast import faint

SMALL = Scale(8, 0.01, 0.5)
RESULTS = Path(__file__).parents[3] / "examples" / "paper" / "results.jsonl"


def finished(study, folds=2, scale=SMALL, data="small set"):
    """Every configuration of a study; accuracy rises with the fold."""
    trials = grid(STUDIES[study], scale, data, num_folds=folds, seeds=1, only={})
    return [
        Finished(t.settings, {}, tuple(Epoch(n, 1.0, 0.1 * n + 0.2 * (t.fold or 0), 1.0) for n in range(3)))
        for t in trials
    ]


@pytest.fixture
def canvases(monkeypatch):
    """The pictures that are drawn; nothing is written."""
    drawn = []
    monkeypatch.setattr(Canvas, "savefig", lambda self, *_, **__: drawn.append(self))
    return drawn


def hue(colour):
    """Which of the captions' colours it is."""
    red, green, blue = (int(to_hex(colour)[i : i + 2], 16) for i in (1, 3, 5))
    if red > 180 and green > 120:
        return "yellow"
    return {red: "red", green: "green", blue: "blue"}[max(red, green, blue)]


NOISES = {"blue": 1, "green": 1, "red": 1, "yellow": 1}
PANELS = {  # by figure: names of the panels, curves of each
    1: (["(a) random", "(b) mode"], 4),
    2: (["(a) uniform", "(b) triangular", "(c) normal", "(d) logistic"], 8),
    3: (["(a) random", "(b) mode"], 8),
    4: (["(a) random", "(b) mode"], 4),
    5: (["(a) expectation", "(b) random", "(c) mode"], 8),
    6: (["(a) random", "(b) mode"], 4),
    7: (["(a) expectation", "(b) random", "(c) mode"], 8),
}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: str(figure.number))
def test_a_figure_has_the_panels_and_curves_of_its_caption(figure, canvases, tmp_path):
    (path,) = draw(figure, finished(figure.study), tmp_path)
    names, num_curves = PANELS[figure.number]
    axes = canvases[0].axes
    assert path.name == f"figure{figure.number}.png"
    assert [each.get_title(loc="left") for each in axes] == names
    for each in axes:
        assert len(each.lines) == len(each.collections) == num_curves  # each line has its band
        assert not each.texts  # nothing is missing
        counts = Counter((hue(line.get_color()), line.get_linestyle()) for line in each.lines)
        lines = ("-",) if num_curves == 4 else ("-", ":")
        assert counts == {(colour, line): 1 for colour in NOISES for line in lines}
    assert faint(canvases[0], with_areas=False) == []


@pytest.mark.parametrize(
    ("number", "meanings"),
    [
        (1, {"uniform": "blue", "triangular": "green", "normal": "red", "logistic": "yellow"}),
        (2, {"same start": "green", "same end": "red", "partition": "yellow", "overlapped": "blue"}),
    ],
)
def test_the_legend_stands_outside_the_panels_and_names_the_colours_of_the_caption(
    number, meanings, canvases, tmp_path
):
    draw(FIGURES[number - 1], finished("cifar10"), tmp_path)
    (legend,) = canvases[0].legends
    assert all(axes.get_legend() is None for axes in canvases[0].axes)
    names = [text.get_text() for text in legend.get_texts()]
    colours = [hue(line.get_color()) for line in legend.get_lines()]
    assert dict(zip(names, colours, strict=True)).items() >= meanings.items()
    styles = {name: line.get_linestyle() for name, line in zip(names, legend.get_lines(), strict=True)}
    assert number == 1 or (styles["homogeneous"], styles["progressive"]) == ("-", ":")


def test_a_curve_is_the_mean_over_the_folds_and_its_interval_the_band(canvases, tmp_path):
    draw(FIGURES[0], finished("cifar10"), tmp_path)
    axes = canvases[0].axes[0]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.3])
    tops = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert max(tops) == 1.0  # 12.71 / √2 of a deviation of 0.2 / √2, cut at all


def test_a_scaled_run_says_so_in_the_picture_and_a_full_one_too(canvases, tmp_path):
    draw(FIGURES[0], finished("cifar10"), tmp_path)
    draw(FIGURES[0], finished("cifar10", scale=Scale(), data="cifar10"), tmp_path)
    small, full = (canvas.get_supxlabel() for canvas in canvases)
    assert small.startswith(
        "data: small set, reduced scale: 1/8 of the width, 5 of 500 epochs, 50% of the given data\n"
    )
    assert small.endswith("over 2 of 2 folds")
    assert full.startswith("data: cifar10, full scale: full width, 500 epochs, all data\n")


def test_a_panel_says_how_many_of_its_curves_were_run(canvases, tmp_path):
    trials = [each for each in finished("cifar10") if each.settings["schedule"].get("noise") == "uniform"]
    draw(FIGURES[0], trials, tmp_path)
    draw(FIGURES[1], trials, tmp_path)
    assert [text.get_text() for axes in canvases[0].axes for text in axes.texts] == ["1 of 4 curves were run"] * 2
    assert [len(axes.texts) for axes in canvases[1].axes] == [0, 1, 1, 1]


def test_scales_are_not_mixed(canvases, tmp_path):
    trials = finished("cifar10") + finished("cifar10", scale=Scale())
    assert [path.name for path in draw(FIGURES[1], trials, tmp_path)] == ["figure2.png", "figure2-2.png"]


def test_another_study_draws_nothing(canvases, tmp_path):
    assert draw(FIGURES[5], finished("cifar10"), tmp_path) == []
    assert not canvases


def test_trials_as_lines_are_the_trials_again(tmp_path):
    trials = finished("speech_commands")
    write_lines(trials, tmp_path / "r.jsonl")
    again = {json.dumps(each.settings, sort_keys=True): each.epochs for each in read_lines(tmp_path / "r.jsonl")}
    assert len(again) == len(trials)
    for trial in trials:
        found = again[json.dumps(trial.settings, sort_keys=True)]
        assert [epoch.accuracy for epoch in found] == pytest.approx([epoch.accuracy for epoch in trial.epochs])
        assert [epoch.number for epoch in found] == [0, 1, 2]


def test_the_stored_results_draw_all_seven_figures(canvases, tmp_path):
    trials = read_lines(RESULTS)
    assert RESULTS.stat().st_size < 200_000
    for figure in FIGURES:
        assert [path.name for path in draw(figure, trials, tmp_path)] == [f"figure{figure.number}.png"]
    assert all(axes.lines for canvas in canvases for axes in canvas.axes)


def test_ranking_is_by_the_mean_of_the_last_epoch():
    trials = finished("speech_commands")
    best = trials[5]
    trials[5] = Finished(best.settings, {}, (Epoch(0, 1.0, 0.99, 1.0),))
    (lines,) = rankings(trials)
    ranks = [line for line in lines if line.startswith("| 1 ")]
    assert "| 2 | 69.50 ± 41.72 |" in ranks[0]  # of 99 and 40
    assert len([line for line in lines if line.startswith("| ")]) == 1 + 33
