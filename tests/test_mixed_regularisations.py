"""Layers of one network with noise families, strategies and rules of their own (paper, abstract and section 3).

This covers `layers/function_map.py` too.
"""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers import quantizers
from ana_fx.layers.function_map import FunctionMap
from ana_fx.schedule.degrees import NoiseRule, Strategy
from ana_fx.schedule.noise import Logistic, Normal, Triangular, Uniform
from ana_fx.schedule.schedule import LayerSchedule, Schedule
from tests.models import INPUT_SHAPES, Chain, Residual, example, make_awkward, train
from tests.test_whole_flow import assert_no_integer_differs

FIRST = LayerSchedule(noise="normal", strategy="random", mean="dynamic")
LAST = LayerSchedule(noise="triangular", variance="static")
MIXED = Schedule(depth_overrides={0: FIRST}, overrides={"2": LAST})
X = torch.rand(4, 4)


def linears(schedule, count=3):
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(count)))
    return ana_fx.prepare(model, X, precision="int4", schedule=schedule, calibration=[X])


def noise_of(qat):
    return {
        path: (float(m.quantizers()[-1].mean), float(m.quantizers()[-1].std)) for path, m in layer_maps(qat).items()
    }


def test_quantizers_have_the_noise_of_their_layer():
    quantizers = [m.weight_quantizer for m in layer_maps(linears(MIXED)).values()]
    assert [q.noise for q in quantizers] == [Normal(), Uniform(), Triangular()]
    assert [q.strategy for q in quantizers] == [Strategy.RANDOM, Strategy.MODE, Strategy.MODE]
    assert [q.num_neighbours for q in quantizers] == [q.noise.num_neighbours(0.5) for q in quantizers]
    assert [float(q.mean) for q in quantizers] == [-0.5, 0.0, 0.0]
    assert [q.std for q in quantizers] == [torch.tensor(q.noise.std_of(0.5)) for q in quantizers]


def test_noise_decays_where_it_is_dynamic_alone():
    qat = linears(MIXED)
    annealer = ana_fx.Annealer(qat, 10)
    for _ in range(10):
        annealer.step()
    assert noise_of(qat) == {"0": (0.0, 0.0), "1": (0.0, 0.0), "2": (0.0, pytest.approx(Triangular().std_of(0.5)))}


def test_a_layer_with_static_noise_learns_to_the_end():
    qat = linears(MIXED)
    annealer = ana_fx.Annealer(qat, 10)
    assert [stage.annealed for stage in annealer.stages] == [(), ("0",), ("0", "1")]
    assert all("2" not in stage.annealing for stage in annealer.stages)
    for _ in range(10):
        annealer.step()
    qat.train()(X).square().sum().backward()
    assert [m.weight.grad is not None for m in layer_maps(qat).values()] == [False, False, True]


@pytest.mark.parametrize("own", [{"variance": "static"}, {"variance": "static", "strategy": "random"}])
def test_noise_that_never_vanishes_before_a_reader_whose_noise_does_is_refused(own):
    schedule = Schedule(overrides={"1": LayerSchedule(**own)})
    with pytest.raises(
        ana_fx.ScheduleError, match=r"1 -> 2: its noise never vanishes, that of its reader does at 0\.7"
    ):
        linears(schedule)
    qat = linears(Schedule(overrides={"1": LayerSchedule(**own)}, allows_disorder=True))
    assert [(each.first, each.second, each.is_named) for each in qat.meta["order_breaks"]] == [("1", "2", False)]


def test_layers_that_are_all_static_have_no_order_to_break():
    backwards = {0: LayerSchedule(0.4, 0.7), 1: LayerSchedule(0.0, 0.3)}
    assert linears(Schedule(variance="static", depth_overrides=backwards)).meta["order_breaks"] == ()


def test_a_network_is_not_static_if_one_layer_is_dynamic():
    assert Schedule(variance="static").is_static
    assert not Schedule(variance="static", overrides={"1": LayerSchedule(variance="dynamic")}).is_static
    assert not Schedule(overrides={"1": LayerSchedule(variance="static")}).is_static


@pytest.mark.parametrize("precision", ["all-ternary", "int4"])
@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_after_training_with_a_mixture(kind, precision, tmp_path):
    first = LayerSchedule(noise="logistic", strategy="expectation")
    second = LayerSchedule(noise="triangular", strategy="random", mean="dynamic")
    head = LayerSchedule(noise="normal", variance="static", mean_constant=0.25)
    schedule = Schedule(depth_overrides={0: first, 1: second}, overrides={"head": head})
    qat = ana_fx.prepare(make_awkward(kind()), example(kind, signed=True), precision=precision, schedule=schedule)
    train(qat, INPUT_SHAPES[kind], 12, signed=True)
    assert_no_integer_differs(qat.eval(), example(kind, 64, signed=True), tmp_path)


def test_a_mixture_is_saved_and_resumed_bit_by_bit():
    first, second = linears(MIXED), linears(MIXED)
    annealer = ana_fx.Annealer(first, 10)
    for _ in range(2):
        annealer.step()
    second.load_state_dict(first.state_dict())
    again = ana_fx.Annealer(second, 10)
    for _ in range(3):
        annealer.step()
        again.step()
        assert noise_of(first) == noise_of(second)


def test_a_program_does_not_carry_the_noise_that_it_was_trained_with(tmp_path):
    qat = linears(MIXED)
    train(qat, (4,), 10)
    program = ana_fx.convert(qat)
    assert {each.override for each in ana_fx.annealing_ranges(program).values()} == {None}
    ana_fx.save(program, tmp_path / "program.zip")
    assert torch.equal(ana_fx.load(tmp_path / "program.zip")(X), program(X))


def test_the_expectation_of_static_noise_is_refused_by_convert_with_its_name():
    qat = linears(Schedule(overrides={"2": LayerSchedule(strategy="expectation", variance="static")}))
    train(qat, (4,), 10)
    with pytest.raises(ana_fx.NotAnnealedError, match=r"1 quantizer\(s\).*\n.*2\.weight_quantizer: expectation"):
        ana_fx.convert(qat)


def test_only_the_layers_that_keep_random_noise_are_told():
    qat = linears(Schedule(overrides={"2": LayerSchedule(strategy="random", variance="static")}))
    train(qat, (4,), 10)
    (note,) = ana_fx.describe(ana_fx.convert(qat)).notes
    assert "nothing takes away that of 2; use variance='dynamic'" in note


def test_describe_names_the_noise_where_layers_differ():
    rows = ana_fx.describe(linears(MIXED)).rows
    assert [row.noise for row in rows] == ["normal, random", "uniform, mode", "triangular, mode, static"]
    assert [(row.start is None, row.end is None) for row in rows] == [(False, False), (False, False), (True, True)]
    assert [row.noise for row in ana_fx.describe(linears(Schedule("normal"))).rows] == [None] * 3


def test_the_picture_names_all_families_and_strategies():
    title = ana_fx.plot_schedule(linears(MIXED)).get_suptitle()
    assert title == "partition, homogeneous, normal and uniform and triangular noise, random and mode"


def test_the_theory_asks_each_layer():
    own = {0: LayerSchedule(noise=Logistic(), mean_power=2.0), 2: LayerSchedule(mean="static")}
    report = ana_fx.check_hypotheses(linears(Schedule(mean="dynamic", depth_overrides=own)))
    failures = report["mean outweighs"].failures
    assert [failure.split(":")[0] for failure in failures] == ["0", "2"]  # uniform noise that shrinks faster passes
    assert [rates.noise for rates in report.rates] == [Logistic(), Uniform(), Uniform()]


@pytest.mark.parametrize(("strategy", "reads_levels"), [("mode", True), ("random", True), ("expectation", False)])
def test_a_function_knows_whether_it_reads_levels(strategy, reads_levels):
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    schedule = Schedule(overrides={"0": LayerSchedule(strategy=strategy)})
    maps = layer_maps(ana_fx.prepare(model, X, schedule=schedule)).values()
    assert [each.reads_levels for each in maps if isinstance(each, FunctionMap)] == [reads_levels]


def test_kernels_take_the_layers_alone_whose_noise_they_know(monkeypatch):
    monkeypatch.setattr(quantizers, "has_kernels", lambda x: True)
    maps = layer_maps(linears(MIXED).train()).values()
    assert [each.weight_quantizer.is_fused(each.weight) for each in maps] == [False, True, False]
    assert [each.weight_quantizer.is_blocked(each.weight) for each in maps] == [False, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "cauchy"}, "unknown noise 'cauchy'; known are 'uniform'"),
        ({"strategy": "median"}, "unknown strategy 'median'"),
        ({"mean": "moving"}, "unknown mean 'moving'; known are 'static', 'dynamic'"),
        ({"variance": 3}, "unknown variance 3"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(settings, message):
    with pytest.raises(ValueError, match=message):
        LayerSchedule(**settings)


def test_names_become_members_and_the_last_pattern_wins():
    schedule = Schedule(depth_overrides={0: FIRST}, overrides={"a": LayerSchedule(noise="logistic", mean="static")})
    own = schedule.constants(schedule.annealing_range(0, 3, "a"))
    assert (own.noise, own.strategy, own.mean_rule) == (Logistic(), Strategy.RANDOM, NoiseRule.STATIC)
