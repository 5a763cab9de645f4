"""Every preset against the closed form that it names."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps, quantizers
from ana_fx.kernels.fused_quantizer import is_usual
from ana_fx.layers.codebook_quantizer import quantizer_of
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.levels import Levels
from ana_fx.schedule.degrees import Gradient, GradientRule
from ana_fx.schedule.presets import preset
from ana_fx.schedule.schedule import AnnealingRange, Strategy
from tests.models import INPUT_SHAPES, Chain, Residual, example, make_awkward, train
from tests.test_whole_flow import assert_no_integer_differs

RANGE = AnnealingRange(0, 0.0, 0.7)
X = torch.linspace(-3, 3, 6001)[1:-1:2] + 2.0**-11  # on no edge of a compact noise
NORMAL_STD = 0.5 * math.sqrt(2) / (2 * float(torch.erfinv(torch.tensor(0.95, dtype=torch.float64)))) * 1.0
CLOSED_FORMS = {
    "ste": lambda x: (x + 0.5).clamp(0, 1),
    "hard-sigmoid": lambda x: (x + 0.5).clamp(0, 1),
    "lsq": lambda x: (x + 0.5).clamp(0, 1),
    "best-static": lambda x: (x + 0.5).clamp(0, 1),
    "best-dynamic": lambda x: (x + 0.5).clamp(0, 1),
    "whetstone": lambda x: (x + 0.5).clamp(0, 1),
    "clipped-relu": lambda x: x.clamp(0, 1),
    "relu": lambda x: x.clamp_min(0),
    "shifted-ste": lambda x: x.clamp(0, 1),
    "piecewise-polynomial": lambda x: torch.where(
        x < 0, 2 * (x + 0.5).clamp(0, 1) ** 2, 1 - 2 * (x.clamp(0, 0.5) - 0.5) ** 2
    ),
    "error-function": lambda x: 0.5 * (1 + torch.erf(x / (math.sqrt(2) * NORMAL_STD))),
    "logistic": lambda x: torch.sigmoid(x * 2 * math.log(1.95 / 0.05)),
}


def noisy(schedule, x, levels, *, strategy=None, progress=0.0):
    """`fake_quantize` as the quantizers of a model with that schedule call it; levels as if the mean were 0."""
    mean, std = schedule.noise_at(progress, RANGE, 1)
    constants = schedule.constants(RANGE)
    return fake_quantize(
        x,
        torch.tensor(1.0),
        torch.tensor(mean),
        torch.tensor(std),
        levels=levels._replace(offset=levels.offset - constants.threshold_shift),
        noise=constants.noise,
        strategy=strategy or constants.strategy,
        num_neighbours=constants.num_neighbours,
        gradient=constants.gradient,
    )


HEAVISIDE = Levels(0, 1, 1.0)
ALL_LEVELS = {
    "H": HEAVISIDE,
    "int2": Levels(-2, 1, 0.5),
    "uint2 floor": Levels(0, 3, 0.0),
    "int8": Levels(-127, 127, 0.5),
}
STATIC = [name for name in CLOSED_FORMS if name not in ("whetstone", "best-dynamic")]
IN_MODE = [name for name in CLOSED_FORMS if name != "whetstone"]
WITHOUT_A_GRADIENT_OF_THEIR_OWN = [name for name in CLOSED_FORMS if name not in ("clipped-relu", "relu")]


def expected(name, x, levels):
    """The sum of the closed form over all thresholds, and its derivative, in float64."""
    x = x.double().requires_grad_()
    thresholds = [level - levels.offset for level in range(levels.lo + 1, levels.hi + 1)]
    value = levels.lo + sum(CLOSED_FORMS[name](x - threshold) for threshold in thresholds)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


@pytest.mark.parametrize("levels", list(ALL_LEVELS.values())[:3], ids=list(ALL_LEVELS)[:3])
@pytest.mark.parametrize("name", WITHOUT_A_GRADIENT_OF_THEIR_OWN)
def test_expectation_and_gradient_are_the_closed_form(name, levels):
    value, slope = expected(name, X, levels)
    x = X.clone().requires_grad_()
    found = noisy(preset(name), x, levels, strategy=Strategy.EXPECTATION)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    # float32 values and cdfs, each below 4 and with an error of some ulps; slopes reach 2·ln 39 / 4 · 2 of them.
    torch.testing.assert_close(found.detach().double(), value, rtol=0, atol=2.0**-19)
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=2.0**-17)


@pytest.mark.parametrize("levels", ALL_LEVELS.values(), ids=ALL_LEVELS)
@pytest.mark.parametrize("name", IN_MODE)
def test_forward_is_the_quantizer_and_backward_the_derivative_of_the_closed_form(name, levels):
    schedule, x = preset(name), X.clone().requires_grad_()
    found = noisy(schedule, x, levels)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    moved = 0.5 if name == "shifted-ste" else 0.0
    assert torch.equal(found.detach(), torch.floor(X + levels.offset - moved).clamp(levels.lo, levels.hi))
    torch.testing.assert_close(gradient.double(), expected(name, X, levels)[1], rtol=0, atol=2.0**-17)


@pytest.mark.parametrize(
    "kind", [IntegerType(1, False), IntegerType(1, True), IntegerType.of_levels([-4, -1, 0, 2])], ids=str
)
@pytest.mark.parametrize("name", [name for name in IN_MODE if name != "shifted-ste"])
def test_a_codebook_has_the_closed_form_at_each_of_its_thresholds(name, kind):
    quantizer, codebook, x = quantizer_of(kind, preset(name)), kind.codebook, X.clone().requires_grad_()
    quantizer.set_scale(torch.ones(()))
    quantizer.std.fill_(preset(name).noise_at(0.0, RANGE, 1)[1])
    found = quantizer(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(found.detach(), codebook.level(X))
    y, unit = X.double().requires_grad_(), 1 if name == "relu" else min(codebook.jumps)  # the width of the noise
    pairs = zip(codebook.jumps, codebook.thresholds, strict=True)
    form = sum(jump * CLOSED_FORMS[name]((y - threshold) / unit) for jump, threshold in pairs)
    (expected_gradient,) = torch.autograd.grad(form.sum(), y)
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=0, atol=2.0**-15
    )  # jumps up to 3 of the slope


def test_the_improper_relu_counts_the_thresholds_that_were_reached():
    x = torch.tensor([-3.0, -1.5, -0.5, 0.0, 0.5, 0.75, 9.0], requires_grad=True)  # at and between −1.5, −0.5, 0.5
    noisy(preset("relu"), x, ALL_LEVELS["int2"]).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", ["clipped-relu", "relu"])
def test_a_gradient_of_its_own_vanishes_with_the_noise(name):
    schedule, x = dataclasses.replace(preset(name), variance="dynamic"), X.clone().requires_grad_()
    noisy(schedule, x, HEAVISIDE, progress=0.7).sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("name", [name for name in STATIC if name != "shifted-ste"])
def test_the_thresholds_of_the_deployed_network_are_the_target_s(name):
    x = torch.rand(64, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    ones = {"precision": "int4", "calibration": [x]}
    qat = ana_fx.prepare(model, x, schedule=name, **ones).eval()
    assert {q.offset for _, q in quantizers(qat)} == {0.5}
    plain = ana_fx.prepare(model, x, schedule="ste", **ones).eval()
    assert torch.equal(qat(x), plain(x))
    assert torch.equal(ana_fx.convert(qat)(x), plain(x))


@pytest.mark.parametrize("name", ["clipped-relu", "relu"])
def test_a_scale_learns_with_the_gradient_that_takes_the_quantizer_s_place(name):
    constants, levels = preset(name).constants(RANGE), ALL_LEVELS["int2"]
    scale = torch.full_like(X, 0.5).requires_grad_()  # one for each number
    std = torch.tensor(constants.noise.std_of(0.5))
    settings = {"noise": constants.noise, "strategy": constants.strategy, "gradient": constants.gradient}
    fake_quantize(X, scale, torch.tensor(0.0), std, levels=levels, num_neighbours=0, **settings).sum().backward()
    u = X.double() / 0.5
    by_hand = torch.floor(u + levels.offset).clamp(-2, 1) - u * expected(name, u.clone(), levels)[1]
    torch.testing.assert_close(scale.grad.double(), by_hand, rtol=0, atol=8 * 2.0**-17)  # |u| < 8 times the slope's


@pytest.mark.parametrize("kind", [Chain, Residual])
@pytest.mark.parametrize("name", ["clipped-relu", "relu"])
def test_no_integer_differs_after_training_with_a_gradient_of_its_own(name, kind, tmp_path):
    qat = ana_fx.prepare(make_awkward(kind()), example(kind, signed=True), precision="all-ternary", schedule=name)
    train(qat, INPUT_SHAPES[kind], 3, signed=True)
    assert_no_integer_differs(qat.eval(), example(kind, 64, signed=True), tmp_path)


@pytest.mark.parametrize("strategy", ["expectation", "random"])
@pytest.mark.parametrize("settings", [{"gradient_mean": 0.5}, {"gradient": "relu"}])
def test_a_gradient_of_its_own_needs_the_forward_pass_of_the_quantizer(settings, strategy):
    with pytest.raises(ValueError, match=rf"gradient of the .* needs strategy 'mode'.* found strategy '{strategy}'"):
        ana_fx.Schedule(strategy=strategy, **settings)
    schedule = ana_fx.Schedule(overrides={"0": ana_fx.LayerSchedule(strategy=strategy)}, **settings)
    with pytest.raises(ana_fx.ScheduleError, match=r"0 at depth 0: the gradient of the .* needs strategy 'mode'"):
        ana_fx.prepare(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), schedule=schedule)


def test_layers_may_have_different_variants():
    own = {"0": ana_fx.LayerSchedule(gradient="relu"), "1": ana_fx.LayerSchedule(gradient_mean=0.5)}
    schedule = dataclasses.replace(preset("ste"), overrides=own)
    qat = ana_fx.prepare(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), schedule=schedule)
    found = [m.weight_quantizer.gradient for m in layer_maps(qat).values()]
    assert found == [Gradient(GradientRule.RELU), Gradient(mean=0.5), Gradient()]
    assert [row.noise for row in ana_fx.describe(qat).rows] == [
        "uniform, mode, static, gradient of the relu",
        "uniform, mode, static, gradient of the expectation moved by 0.5 steps",
        "uniform, mode, static",
    ]


def test_kernels_leave_a_gradient_that_they_do_not_know_to_eager_code():
    names = ["ste", "lsq", "clipped-relu", "relu", "shifted-ste"]
    constants = [preset(name).constants() for name in names]
    found = [is_usual(each.noise, each.strategy, each.num_neighbours, each.gradient) for each in constants]
    assert found == [True, True, False, False, True]


def test_the_hard_sigmoid_has_the_deviation_of_the_paper():
    deviation = pytest.approx(1 / (2 * math.sqrt(3)), rel=2e-16)
    assert preset("hard-sigmoid").noise_at(0.5, RANGE, 1) == (0.0, deviation)
    assert preset("clipped-relu").noise_at(0.5, RANGE, 1) == (0.0, deviation)
    assert preset("clipped-relu").constants().gradient == Gradient(mean=0.5)
    assert [preset(name).threshold_shift(RANGE) for name in ("clipped-relu", "shifted-ste")] == [0.0, 0.5]


@pytest.mark.parametrize("name", STATIC)
def test_static_presets_are_the_same_at_all_times(name):
    assert len({preset(name).noise_at(progress / 8, RANGE, 1) for progress in range(9)}) == 1


@pytest.mark.parametrize("progress", [0.0, 0.14, 0.35, 0.69, 0.7, 1.0])
def test_whetstone_computes_ramps_whose_width_falls_linearly(progress):
    remaining = max(0.0, 1 - progress / 0.7)
    if remaining:
        ramp = (X.double() / remaining + 0.5).clamp(0, 1)
    else:
        ramp = (X >= 0).double()
    found = noisy(preset("whetstone"), X, HEAVISIDE, progress=progress)
    # x + 1 is rounded to an ulp of 4 before the ramp, whose slope is 1 / remaining
    torch.testing.assert_close(found.double(), ramp, rtol=0, atol=2.0**-20 / max(remaining, 0.01))


def test_whetstone_sharpens_from_the_input_to_the_output():
    qat = ana_fx.prepare(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), schedule="whetstone")
    first, second, third = ana_fx.annealing_ranges(qat).values()
    assert (first.end, second.end) == (second.start, third.start)


def test_lsq_learns_its_steps():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    qat = ana_fx.prepare(model, schedule="lsq", calibration=[torch.rand(8, 4)])
    ana_fx.Annealer(qat, 10)
    qat(torch.rand(8, 4)).square().sum().backward()
    scales = {name: parameter for name, parameter in qat.named_parameters() if name.endswith("scale")}
    learned = {name for name, scale in scales.items() if scale.requires_grad}
    assert learned == {"0.weight_quantizer.scale", "0.output_quantizer.scale", "2.weight_quantizer.scale"}
    assert all(
        (scale.grad is not None and bool(scale.grad.any())) is (name in learned) for name, scale in scales.items()
    )


def test_a_name_stands_for_its_schedule():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert ana_fx.prepare(model, schedule="error-function").meta["schedule"] == ana_fx.preset("error-function")
    assert ana_fx.prepare(model).meta["schedule"] == ana_fx.preset("lsq")
    assert ana_fx.preset("best-dynamic") == ana_fx.Schedule()


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_presets_can_be_changed_copied_and_hashed(name):
    schedule = preset(name)
    assert copy.deepcopy(schedule) == schedule
    assert len({schedule, preset(name)}) == 1
    assert dataclasses.replace(schedule, stop=0.9).stop == 0.9


def test_a_state_of_moved_thresholds_is_not_loaded_where_they_stay():
    """What was trained as "clipped-relu" when that moved the thresholds."""
    old, new = (ana_fx.prepare(nn.Linear(2, 2), schedule=name) for name in ("shifted-ste", "clipped-relu"))
    with pytest.raises(ana_fx.SettingsError, match=r"thresholds moved by 0\.5 steps"):
        new.load_state_dict(old.state_dict())


def test_unknown_presets_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown schedule 'adam'; known are 'ste', .*'best-dynamic'"):
        ana_fx.prepare(nn.Linear(2, 2), schedule="adam")
