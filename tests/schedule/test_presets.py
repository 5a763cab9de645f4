"""Every preset against the closed form that it names."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.levels import Levels
from ana_fx.schedule.presets import preset
from ana_fx.schedule.schedule import AnnealingRange, Strategy

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
    "piecewise-polynomial": lambda x: torch.where(
        x < 0, 2 * (x + 0.5).clamp(0, 1) ** 2, 1 - 2 * (x.clamp(0, 0.5) - 0.5) ** 2
    ),
    "error-function": lambda x: 0.5 * (1 + torch.erf(x / (math.sqrt(2) * NORMAL_STD))),
    "logistic": lambda x: torch.sigmoid(x * 2 * math.log(1.95 / 0.05)),
}


def noisy(schedule, x, levels, *, strategy=None, progress=0.0):
    """`fake_quantize` as the quantizers of a model with that schedule call it; levels as if the mean were 0."""
    mean, std = schedule.noise_at(progress, RANGE, 1)
    return fake_quantize(
        x,
        torch.tensor(1.0),
        torch.tensor(mean),
        torch.tensor(std),
        levels=levels._replace(offset=levels.offset - schedule.threshold_shift(RANGE)),
        noise=schedule.noise,
        strategy=strategy or schedule.strategy,
        num_neighbours=schedule.noise.num_neighbours(schedule.half_width),
    )


HEAVISIDE = Levels(0, 1, 1.0)


def expected(name, x, levels):
    """The sum of the closed form over all thresholds, and its derivative, in float64."""
    x = x.double().requires_grad_()
    thresholds = [level - levels.offset for level in range(levels.lo + 1, levels.hi + 1)]
    value = levels.lo + sum(CLOSED_FORMS[name](x - threshold) for threshold in thresholds)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


@pytest.mark.parametrize("levels", [HEAVISIDE, Levels(-2, 1, 0.5), Levels(0, 3, 0.0)], ids=["H", "int2", "uint2 floor"])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_expectation_and_gradient_are_the_closed_form(name, levels):
    value, slope = expected(name, X, levels)
    x = X.clone().requires_grad_()
    found = noisy(preset(name), x, levels, strategy=Strategy.EXPECTATION)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    # float32 values and cdfs, each below 4 and with an error of some ulps; slopes reach 2·ln 39 / 4 · 2 of them.
    torch.testing.assert_close(found.detach().double(), value, rtol=0, atol=2.0**-19)
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=2.0**-17)


@pytest.mark.parametrize("name", [name for name in CLOSED_FORMS if name != "whetstone"])
def test_forward_is_the_quantizer_and_backward_the_derivative_of_the_closed_form(name):
    schedule, x = preset(name), X.clone().requires_grad_()
    found = noisy(schedule, x, HEAVISIDE)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(found.detach(), torch.heaviside(X - schedule.threshold_shift(RANGE), torch.ones(())))
    torch.testing.assert_close(gradient.double(), expected(name, X, HEAVISIDE)[1], rtol=0, atol=2.0**-17)


def test_the_hard_sigmoid_has_the_deviation_of_the_paper():
    assert preset("hard-sigmoid").noise_at(0.5, RANGE, 1) == (0.0, pytest.approx(1 / (2 * math.sqrt(3)), rel=2e-16))
    assert preset("clipped-relu").threshold_shift(RANGE) == 0.5


@pytest.mark.parametrize("name", [n for n in CLOSED_FORMS if n not in ("whetstone", "best-dynamic")])
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
    assert ana_fx.prepare(model).meta["schedule"] == ana_fx.preset("best-dynamic")


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_presets_can_be_changed_copied_and_hashed(name):
    schedule = preset(name)
    assert copy.deepcopy(schedule) == schedule
    assert len({schedule, preset(name)}) == 1
    assert dataclasses.replace(schedule, stop=0.9).stop == 0.9


def test_the_improper_relu_is_refused_with_the_reason_and_a_way_out():
    with pytest.raises(ValueError, match=r"no schedule is 'relu': .* no finite mass.*'clipped-relu'"):
        preset("relu")


def test_unknown_presets_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown schedule 'adam'; known are 'ste', .*'best-dynamic'"):
        ana_fx.prepare(nn.Linear(2, 2), schedule="adam")
