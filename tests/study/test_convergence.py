"""The distance between the noisy and the exact network, against networks small enough to write down."""

import copy

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx import LayerSchedule, Schedule
from ana_fx.graph import layer_maps
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.levels import Levels
from ana_fx.study.convergence import compositional_convergence
from tests.models import INPUT_SHAPES, Residual, Shared, example, train


def unit_chain(schedule, *, length=3):
    """x -> x -> … on integers that all stand at thresholds, as do the weights; with the batch to measure on."""
    model = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(length)))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    x = torch.arange(-3.0, 4.0)[:, None]
    precision = ana_fx.Precision("int4", "int4", "int8", "int8", rounding="floor")
    qat = ana_fx.prepare(model, x, precision=precision, schedule=schedule, calibration=[x])
    for module in qat.modules():
        if isinstance(module, ana_fx.layers.quantizers.Quantizer):
            module.set_scale(torch.ones_like(module.scale))
    return qat, x


def test_errors_of_one_layer_are_the_formula():
    schedule = Schedule("normal", mean="dynamic", stop=0.75)
    qat, x = unit_chain(schedule, length=1)
    (found,) = compositional_convergence(qat, x, progress=[0.25, 0.5, 0.75]).layers
    for index, remaining in enumerate((2 / 3, 1 / 3)):
        noise = (torch.tensor(-0.5 * remaining), torch.tensor(schedule.noise.std_of(0.5) * remaining**2))
        settings = {"noise": schedule.noise, "strategy": ana_fx.Strategy.EXPECTATION, "num_neighbours": 2}
        one = torch.ones(())
        weight = fake_quantize(torch.ones(1, 1), one, *noise, levels=Levels(-8, 7, 0.0), **settings)
        output = fake_quantize(x @ weight, one, *noise, levels=Levels(-128, 127, 0.0), **settings)
        assert found.max_errors[index] == pytest.approx(float((output - x).abs().max()), abs=2.0**-20)
        assert found.mean_errors[index] == pytest.approx(float((output - x).abs().mean()), abs=2.0**-20)
    assert found.max_errors[2] == found.mean_errors[2] == 0.0


def test_after_annealing_nothing_is_left_of_the_noise():
    x = example(Residual)
    qat = ana_fx.prepare(Residual(), x, precision="ternary", schedule=Schedule(), calibration=[x])
    found = compositional_convergence(qat, x, progress=[0.0, 0.7, 1.0])
    assert [layer.path for layer in found.layers] == list(layer_maps(qat))
    assert all(layer.max_errors[0] > 0 and layer.max_errors[1:] == (0.0, 0.0) for layer in found.layers)


def test_each_layer_is_exact_from_the_end_of_its_range():
    x = example(Residual)
    qat = ana_fx.prepare(Residual(), x, precision="ternary", schedule=Schedule("triangular"), calibration=[x])
    found = compositional_convergence(qat, x)
    for layer in found.layers:
        after = [
            e for e, time in zip(layer.max_errors, found.progress, strict=True) if time >= layer.annealing_range.end
        ]
        assert set(after) == {0.0}


def test_the_model_is_not_touched_whatever_it_has_been_through():
    x = example(Residual)
    qat = ana_fx.prepare(Residual(), x, precision="int4", schedule=Schedule())
    train(qat, INPUT_SHAPES[Residual], 3)
    state, mode = copy.deepcopy(qat.state_dict()), qat.training
    compositional_convergence(qat, x, progress=[0.1])
    assert qat.training == mode
    assert all(torch.equal(value, state[name]) for name, value in qat.state_dict().items())


def test_another_schedule_can_be_tried():
    qat, x = unit_chain(Schedule("logistic", mean="dynamic"))
    other = Schedule("logistic", mean="dynamic", stop=0.25)
    own, tried = (compositional_convergence(qat, x, schedule, progress=[0.3]) for schedule in (None, other))
    assert max(layer.max_errors[0] for layer in own.layers) > 0
    assert max(layer.max_errors[0] for layer in tried.layers) == 0
    assert tried.layers[0].annealing_range.end == pytest.approx(0.25 / 3)


def test_shared_weights_are_as_noisy_as_the_annealer_makes_them():
    x = example(Shared)
    qat = ana_fx.prepare(Shared(), x, schedule=Schedule(), calibration=[x])
    found = {layer.path: layer for layer in compositional_convergence(qat, x, progress=[0.7 * 2 / 6]).layers}
    assert found["conv"].max_errors[0] > 0  # its own range ended here, that of its second call did not
    assert found["stem"].max_errors[0] == 0


def test_moments_are_a_hundred_steps_up_to_the_last_end():
    qat, x = unit_chain(Schedule(depth_overrides={2: LayerSchedule(end=0.9)}))
    assert compositional_convergence(qat, x).progress == tuple(0.9 * step / 100 for step in range(101))


@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped", "same_end"])
@pytest.mark.parametrize("noise", ["normal", "logistic"])
def test_errors_fall_faster_than_their_rates_as_19_says(noise, interval):
    qat, x = unit_chain(Schedule(noise, interval=interval, mean="dynamic", stop=0.75))
    for layer in compositional_convergence(qat, x, progress=[step / 128 for step in range(97)]).layers:
        timing = layer.annealing_range
        ratios = [r for r, step in zip(layer.ratios, range(97), strict=True) if step / 128 >= timing.start]
        assert max(ratios) > 0.01
        assert max(ratios[len(ratios) * 7 // 8 :]) < 2.0**-10 * max(ratios)


def test_ratios_are_norms_over_the_rate():
    qat, x = unit_chain(Schedule("normal", interval="same_end", mean="dynamic", stop=0.75))
    first = compositional_convergence(qat, x, progress=[0.5, 0.625, 0.75]).layers[0]
    assert first.power == 2.0
    assert first.norms == first.max_errors  # of one unit
    assert first.ratios == (first.norms[0], first.norms[1] / 0.5**2, 0.0)


def test_without_a_rate_there_are_no_ratios():
    qat, x = unit_chain(Schedule("normal"))
    assert {(each.power, each.ratios) for each in compositional_convergence(qat, x).layers} == {(None, None)}


@pytest.mark.parametrize("noise", ["uniform", "triangular", "normal", "logistic"])
def test_a_prepared_network_of_heavisides_is_exact_layer_by_layer(noise):
    """The network of Theorem 2, out of `prepare`: one-bit features 0 and 1, one-bit weights."""
    x = torch.randn(64, 16)
    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
    precision = ana_fx.Precision("bipolar", "uint1", output="float")
    schedule = Schedule(noise, mean="dynamic", stop=0.75)
    qat = ana_fx.prepare(net, x, precision=precision, schedule=schedule, calibration=[x])
    found = compositional_convergence(qat, x, progress=[step / 32 for step in range(25)])
    assert len(found.layers) == 3
    for depth, layer in enumerate(found.layers):
        assert layer.norms[8 * depth] > 0.0  # 8 of 32 moments a layer
        assert set(layer.norms[8 * (depth + 1) :]) == {0.0}


def test_a_schedule_that_is_a_function_is_measured_without_rates():
    schedule = Schedule("normal", function=lambda layer, time: (0.0, 0.5 * max(0.0, 1.0 - time)))
    qat, x = unit_chain(schedule)
    for layer in compositional_convergence(qat, x, progress=[0.0, 1.0]).layers:
        assert layer.norms[0] > 0.0 == layer.norms[1]
        assert layer.ratios is None


def test_an_error_that_outlives_its_rate_is_infinitely_larger():
    backwards = {0: LayerSchedule(0.375, 0.75), 1: LayerSchedule(0.0, 0.375)}
    schedule = Schedule("normal", mean="dynamic", stop=0.75, depth_overrides=backwards, allows_disorder=True)
    qat, x = unit_chain(schedule, length=2)
    first, second = compositional_convergence(qat, x, progress=[0.4]).layers
    assert (first.power, second.power, second.ratios) == (1.0, None, None)
    assert second.norms[0] >= 1.0


def test_no_moment_at_all_is_refused():
    qat, x = unit_chain(Schedule())
    with pytest.raises(ValueError, match="needed at least one"):
        compositional_convergence(qat, x, progress=[])
