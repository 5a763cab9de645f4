"""A schedule that is a function S(ℓ, t), beside the built-in ones."""

import copy
import math

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.schedule.own_schedule import LayerPosition, span_given
from ana_fx.schedule.schedule import LayerSchedule, Schedule
from tests.models import INPUT_SHAPES, Chain, Residual, example, make_awkward, train
from tests.test_whole_flow import assert_no_integer_differs

X = torch.rand(4, 4)
LAYER = LayerPosition("conv", 0, 1)


def linears(schedule, count=3):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(count)))
    return ana_fx.prepare(model, X, precision="int4", schedule=schedule, calibration=[X])


def same_start(layer, time):
    """What Schedule("uniform", interval="same_start", mean="dynamic", stop=0.75) does."""
    remaining = max(0.0, 1 - time / (0.75 * (layer.depth + 1) / layer.num_depths))
    return -0.5 * remaining, 0.5 * remaining**2


def cosine(layer, time):
    end = 0.75 * (layer.depth + 1) / layer.num_depths
    return 0.0, 0.0 if time >= end else 0.25 * (1 + math.cos(math.pi * time / end))


def noise_of(qat):
    return [(float(m.quantizers()[-1].mean), float(m.quantizers()[-1].std)) for m in layer_maps(qat).values()]


def test_a_function_that_computes_a_built_in_schedule_is_that_schedule():
    own = linears(same_start)
    built_in = linears(Schedule(interval="same_start", mean="dynamic", stop=0.75))
    annealers = [ana_fx.Annealer(qat, 16) for qat in (own, built_in)]
    for _ in range(17):
        # The same power laws, with other roundings: three float64 operations, and one to float32.
        for found, expected in zip(noise_of(own), noise_of(built_in), strict=True):
            assert found == pytest.approx(expected, rel=2.0**-23, abs=2.0**-60)
        assert [m.phase for m in layer_maps(own).values()] == [m.phase for m in layer_maps(built_in).values()]
        for annealer in annealers:
            annealer.step()
    for found, expected in zip(*(ana_fx.annealing_ranges(qat).values() for qat in (own, built_in)), strict=True):
        assert found.start == expected.start == 0.0
        assert found.end == pytest.approx(expected.end, abs=2.0**-40)


@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_after_training_with_a_function(kind, tmp_path):
    schedule = Schedule("triangular", "expectation", function=cosine, half_width=0.5)
    qat = ana_fx.prepare(make_awkward(kind()), example(kind, signed=True), precision="int4", schedule=schedule)
    train(qat, INPUT_SHAPES[kind], 12, signed=True)
    assert_no_integer_differs(qat.eval(), example(kind, 64, signed=True), tmp_path)


def test_a_function_is_told_the_path_and_the_depth_of_each_layer():
    seen = set()

    def by_path(layer, time):
        seen.add(layer)
        return 0.0, 0.5 if layer.path == "2" or time < 0.5 else 0.0

    qat = linears(by_path)
    assert seen == {LayerPosition("0", 0, 3), LayerPosition("1", 1, 3), LayerPosition("2", 2, 3)}
    annealer = ana_fx.Annealer(qat, 4)
    for _ in range(4):
        annealer.step()
    assert [std > 0 for _, std in noise_of(qat)] == [False, False, True]
    assert annealer.stages[-1].annealed == ("0", "1")


def test_a_function_is_resumed_and_copied_like_any_schedule():
    first, second = linears(cosine), linears(cosine)
    annealer = ana_fx.Annealer(first, 10)
    for _ in range(4):
        annealer.step()
    second.load_state_dict(first.state_dict())
    again = ana_fx.Annealer(copy.deepcopy(second), 10)
    again.step()
    annealer.step()
    assert noise_of(again._qat) == noise_of(first)


def test_noise_that_vanishes_at_an_input_after_its_reader_is_refused():
    def backwards(layer, time):
        return 0.0, 0.5 * max(0.0, 1 - time / (1 - 0.25 * layer.depth))

    with pytest.raises(
        ana_fx.ScheduleError, match=r"0 -> 1: its noise is gone at 1, that of its reader already at 0\.75"
    ):
        linears(backwards)
    assert len(linears(Schedule(function=backwards, allows_disorder=True)).meta["order_breaks"]) == 2


def test_noise_that_never_vanishes_before_a_reader_whose_noise_does_is_refused():
    def lasting(layer, time):
        return 0.0, 0.5 if layer.depth == 0 or time < 0.5 else 0.0

    with pytest.raises(
        ana_fx.ScheduleError, match=r"0 -> 1: its noise never vanishes, that of its reader does at 0\.5"
    ):
        linears(lasting)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, TypeError, r"gave None for '0' at depth 0 of 3 at time 0, needed mean and half-width"),
        (0.5, TypeError, r"gave 0\.5 for '0'"),
        ((0.5,), TypeError, r"gave \(0\.5\) for '0'"),
        ((0.0, "0.5"), TypeError, r"gave \(0\.0, '0\.5'\) for '0'"),
        ((9.0, 0.5), ana_fx.ScheduleError, r"gave the mean 9 .*needed one in \[-4, 4\]"),
        ((math.nan, 0.5), ana_fx.ScheduleError, "gave the mean nan"),
        ((0.0, 0.75), ana_fx.ScheduleError, r"gave the half-width 0\.75 .*needed one in \[0, 0\.5\] .*half_width="),
        ((0.0, -0.1), ana_fx.ScheduleError, r"gave the half-width -0\.1"),
    ],
)
def test_what_a_function_gives_is_checked_with_what_was_needed(given, error, message):
    with pytest.raises(error, match=message):
        linears(lambda layer, time: given)


def test_a_function_that_gives_something_else_later_is_refused_when_it_does():
    width = 0.5
    annealer = ana_fx.Annealer(linears(lambda layer, time: (0.0, width)), 4)
    width = 1.0
    with pytest.raises(ValueError, match=r"gave the half-width 1 for '\d' at depth \d of 3 at time 0\.25"):
        annealer.step()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"interval": "same_start", "stop": 0.9}, "interval, stop"),
        ({"mean": "dynamic", "std_power": 1.0}, "mean, std_power"),
        ({"overrides": {"a": LayerSchedule(half_width=0.1)}}, "half_width of 'a'"),
        ({"depth_overrides": {1: LayerSchedule(end=0.1, variance="static")}}, "end of 1, variance of 1"),
    ],
)
def test_nothing_else_may_say_when_noise_decays(settings, found):
    with pytest.raises(ValueError, match=f"nothing else may; found {found}"):
        Schedule(function=cosine, **settings)


def test_families_and_strategies_may_differ_by_layer_under_a_function():
    own = LayerSchedule(noise="normal", strategy="random")
    quantizers = [
        m.weight_quantizer for m in layer_maps(linears(Schedule(function=cosine, overrides={"1": own}))).values()
    ]
    assert [q.noise.name for q in quantizers] == ["uniform", "normal", "uniform"]
    assert [q.std for q in quantizers] == [torch.tensor(q.noise.std_of(0.5)) for q in quantizers]


def test_something_that_cannot_be_called_is_no_function():
    with pytest.raises(TypeError, match=r"function is called with a layer and a time, got 0\.5"):
        Schedule(function=0.5)


@pytest.mark.parametrize(
    ("function", "span"),
    [
        (lambda layer, time: (0.0, 0.5), (1.0, 1.0)),
        (lambda layer, time: (0.0, 0.0), (0.0, 0.0)),
        (lambda layer, time: (0.0, 0.5 if time < 0.3 else 0.0), (0.3, 0.3)),
        (lambda layer, time: (0.0, 0.5 * min(1.0, max(0.0, (0.7 - time) / 0.4))), (0.3, 0.7)),
        (lambda layer, time: (0.0, 0.4 if 0.1 < time < 0.2 else 0.0), (0.1, 0.2)),
        (lambda layer, time: (-0.1 if time < 0.6 else 0.0, 0.0), (0.6, 0.6)),
    ],
)
def test_spans_are_found_by_asking(function, span):
    assert span_given(function, LAYER, 0.5) == pytest.approx(span, abs=2.0**-40)


def test_theory_measures_a_function_and_says_that_it_cannot_judge_it():
    qat = linears(same_start)
    qat(X)
    convergence = ana_fx.compositional_convergence(qat, X)
    assert convergence.progress[-1] == pytest.approx(0.75)
    assert [layer.max_errors[-1] for layer in convergence.layers] == [0.0] * 3
    assert convergence.layers[-1].max_errors[0] > 0
    with pytest.raises(ValueError, match="knows noise that decays as a power of λ, got a schedule that is a function"):
        ana_fx.check_hypotheses(qat)


def test_a_function_is_drawn_under_its_name():
    figure = ana_fx.plot_schedule(linears(cosine))
    assert figure.get_suptitle() == "cosine, uniform noise, mode"
    values = figure.axes[1].lines[0].get_ydata()
    assert values[0] == Schedule().noise.std_of(0.5)
    assert values[-1] == 0.0
