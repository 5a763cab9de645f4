"""The pictures: what is drawn where, and what is said where matplotlib is missing.

This covers `study/plot_style.py` too.
"""

import subprocess
import sys

import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import nn

import ana_fx
from ana_fx import LayerSchedule, Schedule
from ana_fx.study.convergence import compositional_convergence
from ana_fx.study.plot_style import INK, PALE, shade
from ana_fx.study.plots import plot_convergence, plot_quantizer, plot_schedule
from tests.contrast import OF_GRAPHICS, OF_TEXT, contrast, faint
from tests.models import Residual, example

WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
import ana_fx
try:
    ana_fx.plot_quantizer()
except ImportError as error:
    print(error)
"""


def residual(**settings):
    x = example(Residual)
    return ana_fx.prepare(
        Residual(), x, precision="ternary", schedule=Schedule(depth="layer_maps", **settings), calibration=[x]
    )


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def drawn(figure):
    """It is drawn without a warning, belongs to no window, is no blank, and can be seen."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    assert pyplot.get_fignums() == []
    assert faint(figure) == []
    return figure


def test_contrast_is_that_of_wcag():
    assert (contrast("black"), contrast("white")) == (pytest.approx(21.0), 1.0)
    assert contrast("#777777") == pytest.approx(4.48, abs=0.005)  # the grey that just misses what text needs
    assert contrast((0, 0, 0, 0.5)) == contrast((0.5, 0.5, 0.5))


def test_every_colour_of_the_style_can_be_seen():
    assert contrast(INK) >= OF_TEXT
    assert all(contrast(each) >= OF_GRAPHICS for each in (PALE, *(shade(step / 50) for step in range(51))))


def test_what_cannot_be_seen_is_told():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], color="#e0a800")
    axes.set_title("pale", color="#999999")
    assert [said.partition(":")[0] for said in faint(figure)] == ["Line2D(_child0)", "Text(0.5, 1.0, 'pale')"]


def test_a_schedule_has_a_bar_for_each_depth_and_a_line_for_its_noise():
    figure = drawn(plot_schedule(residual()))
    bars, std = figure.axes
    assert len(labels(bars)) == len(std.lines) == 9
    assert labels(bars)[4] == "blocks.1.conv1, blocks.1.skip.0   4"
    assert figure.get_suptitle() == "partition, homogeneous, uniform noise, mode"


def test_lines_of_a_schedule_are_its_noise():
    qat = residual(mean="dynamic", noise="normal")
    _, std, mean = drawn(plot_schedule(qat)).axes
    schedule, timing = qat.meta["schedule"], ana_fx.annealing_ranges(qat)["blocks.0.conv1"]
    for index, axes in ((0, mean), (1, std)):
        times, values = axes.lines[1].get_data()
        assert list(values) == [schedule.noise_at(time, timing, 9)[index] for time in times]


def test_a_layer_map_with_a_range_of_its_own_has_a_bar_of_its_own():
    own = {"blocks.1.skip.0": LayerSchedule(half_width=0.2)}
    assert labels(plot_schedule(residual(overrides=own)).axes[0])[4:6] == ["blocks.1.conv1   4", "blocks.1.skip.0   4"]


def test_a_legend_says_what_pale_and_strong_bars_are():
    (legend,) = drawn(plot_schedule(residual())).legends
    assert [text.get_text() for text in legend.get_texts()] == ["noise as it began", "decaying"]


@pytest.mark.parametrize("settings", [{"variance": "static"}, {"variance": "static", "learn_scales": True}])
def test_a_static_schedule_has_one_bar_that_stays_and_no_timing(settings):
    figure = drawn(plot_schedule(residual(**settings)))
    bars, std = figure.axes
    assert labels(bars) == ["stem.0, blocks.0.conv1 + 8"]
    assert figure.get_suptitle() == "static, uniform noise, mode"
    assert len(set(std.lines[0].get_ydata())) == 1
    assert len(figure.legends[0].get_texts()) == 1


def test_a_static_schedule_has_a_bar_for_each_width_of_the_noise():
    own = {"blocks.1.skip.0": LayerSchedule(half_width=0.2)}
    bars = plot_schedule(residual(variance="static", overrides=own)).axes[0]
    assert labels(bars) == ["stem.0, blocks.0.conv1 + 7", "blocks.1.skip.0"]


@pytest.mark.parametrize(
    ("name", "levels_drawn"),
    [("ternary", [-1, 0, 1]), ("uint2", [0, 1, 2, 3]), ("int8", [*range(-5, 5)]), ("uint8", [*range(9)])],
)
def test_a_quantizer_has_a_column_for_each_family(name, levels_drawn):
    figure = drawn(plot_quantizer(name, half_width=1.0, mean=-0.5, rounding="floor"))
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == ["uniform", "triangular", "normal", "logistic"]
    for axes in figure.axes[:4]:
        stairs, *expectations = (torch.as_tensor(line.get_ydata()) for line in axes.lines)
        assert sorted(set(stairs.tolist())) == levels_drawn
        assert len(expectations) == 3
        assert all(bool((each.diff() >= -1e-4).all()) for each in expectations)


def test_gradients_are_those_of_the_expectations_above_them():
    figure = plot_quantizer("uint2", half_width=1.0)
    for above, below in zip(figure.axes[:4], figure.axes[4:], strict=True):
        for value, slope in zip(above.lines[1:], below.lines, strict=True):
            x, y = (torch.as_tensor(each, dtype=torch.float64) for each in value.get_data())
            area = torch.trapezoid(torch.as_tensor(slope.get_ydata(), dtype=torch.float64), x)
            assert float(area) == pytest.approx(
                float(y[-1] - y[0]), abs=0.02
            )  # a rectangle's edges fall between points


def test_convergence_has_a_line_for_mean_and_maximum_of_each_layer_map():
    qat = residual(noise="normal", mean="dynamic")
    convergence = compositional_convergence(qat, example(Residual), progress=[step / 20 for step in range(15)])
    for figure in (drawn(plot_convergence(convergence)), convergence.plot()):
        bars, errors = figure.axes
        assert labels(bars) == list(ana_fx.annealing_ranges(qat))
        assert len(errors.lines) == 2 * len(bars.lines) == 20
        assert errors.get_yscale() == "log"


class Deep(nn.Module):
    """A chain of twelve layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(12)))

    def forward(self, x):
        return self.layers(x)


def test_many_layer_maps_share_curves_with_their_neighbours():
    x = torch.rand(8, 4)
    qat = ana_fx.prepare(Deep(), x, schedule=Schedule("normal"), calibration=[x])
    bars, errors = drawn(plot_convergence(compositional_convergence(qat, x, progress=[0.0, 0.3, 0.7]))).axes
    assert len(bars.lines) == 12
    assert [text.get_text() for text in errors.get_legend().get_texts()][:2] == ["depths 0 to 1", "depths 2 to 3"]
    assert len(errors.lines) == 2 * 6


def test_what_is_no_convergence_is_refused():
    with pytest.raises(TypeError, match=r"needs what compositional_convergence.. returned, got a Residual"):
        plot_convergence(Residual())


def test_a_model_without_layer_maps_has_no_picture():
    x = torch.rand(2, 3)
    qat = ana_fx.prepare(nn.Flatten(), x, calibration=[x])
    with pytest.raises(ValueError, match="no layer map"):
        plot_schedule(qat)
    with pytest.raises(ValueError, match="no layer map"):
        plot_convergence(compositional_convergence(qat, x, progress=[0.0]))


def test_without_matplotlib_the_error_names_the_extra():
    run = subprocess.run([sys.executable, "-c", WITHOUT_MATPLOTLIB], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "plots need matplotlib: install the extra `plot`, pip install 'ana_fx[plot]'"


def test_the_library_does_not_import_matplotlib_by_itself():
    program = "import sys, ana_fx, ana_fx.study.plots; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
