"""Pictures show what their figure asks for, say their scale, and have a band where there are several runs."""

import pytest
from matplotlib.figure import Figure as Canvas

from examples.paper.figures import FIGURES, draw
from examples.paper.ranking import rankings
from examples.paper.store import Finished
from examples.paper.studies import STUDIES, Scale
from examples.paper.training import Epoch
from examples.paper.trials import grid

SMALL = Scale(8, 0.01, 0.5)


def finished(study, seeds=2, scale=SMALL):
    """Every configuration of a study; accuracy rises with the seed."""
    trials = grid(STUDIES[study], scale, "small set", num_folds=0, seeds=seeds, only={})
    return [
        Finished(t.settings, {}, tuple(Epoch(n, 1.0, 0.1 * n + 0.2 * t.seed, 1.0) for n in range(3))) for t in trials
    ]


@pytest.fixture
def canvases(monkeypatch):
    """The pictures that are drawn; nothing is written."""
    drawn = []
    monkeypatch.setattr(Canvas, "savefig", lambda self, *_, **__: drawn.append(self))
    return drawn


CURVES = {1: 8, 2: 12, 3: 12, 4: 8, 5: 8, 6: 12, 7: 12}  # and the float network


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: str(figure.number))
def test_a_figure_has_a_curve_for_each_configuration_and_the_float_network(figure, canvases, tmp_path):
    (path,) = draw(figure, finished(figure.study), tmp_path)
    (axes,) = canvases[0].axes
    assert path.name == f"figure{figure.number}.png"
    assert len(axes.lines) == len(axes.collections) == CURVES[figure.number] + 1
    styles = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert len(set(styles)) == len(styles)


def test_a_figure_says_its_scale_and_averages_its_runs(canvases, tmp_path):
    draw(FIGURES[0], finished("cifar10"), tmp_path)
    axes = canvases[0].axes[0]
    title = axes.get_title(loc="left")
    assert title.endswith("small set; reduced scale: 1/8 of the width, 5 of 500 epochs, 50% of the given data")
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "(2 runs)" in axes.get_legend().get_texts()[0].get_text()


def test_scales_are_not_mixed(canvases, tmp_path):
    trials = finished("cifar10", seeds=1) + finished("cifar10", seeds=1, scale=Scale())
    assert [path.name for path in draw(FIGURES[1], trials, tmp_path)] == ["figure2.png", "figure2-2.png"]
    assert "full scale" in canvases[1].axes[0].get_title(loc="left")


def test_another_study_draws_nothing(canvases, tmp_path):
    assert draw(FIGURES[5], finished("cifar10", seeds=1), tmp_path) == []
    assert not canvases


def test_ranking_is_by_the_mean_of_the_last_epoch():
    trials = finished("speech_commands")
    best = trials[5]
    trials[5] = Finished(best.settings, {}, (Epoch(0, 1.0, 0.99, 1.0),))
    (lines,) = rankings(trials)
    ranks = [line for line in lines if line.startswith("| 1 ")]
    assert "| 2 | 69.50 ± 41.72 |" in ranks[0]  # of 99 and 40
    assert len([line for line in lines if line.startswith("| ")]) == 1 + 33
