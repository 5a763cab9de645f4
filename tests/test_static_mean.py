"""A static mean moves the thresholds for good: training, eval mode, program and files agree on where they are."""

import dataclasses

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.numerics.levels import Levels
from ana_fx.requantizers.line_fit import LineFit, ShiftArithmetic, fit_qlinear, fit_shift
from tests.models import INPUT_SHAPES, Chain, Residual, example, make_awkward, train
from tests.test_whole_flow import assert_no_integer_differs, with_rounding


def line(offset, *, lo=-8, hi=7, bound=2000):
    """Thirty-one channels of a line through random points."""
    gain, shift = torch.rand(31, dtype=torch.float64) * 0.02 + 0.001, torch.randn(31, dtype=torch.float64) * 3
    return LineFit(gain, shift, torch.tensor(0.5), torch.tensor(0.25), Levels(lo, hi, offset), bound)


@pytest.mark.parametrize("offset", [0.5, 0.0, 0.3, -0.5, 1.0, -0.75])
@pytest.mark.parametrize("kind", ["qlinear", "shift"])
def test_a_staircase_rises_where_the_offset_says(kind, offset):
    fit = line(offset)
    staircase, _ = fit_qlinear(fit, 1) if kind == "qlinear" else fit_shift(fit, ShiftArithmetic())
    accumulator = torch.arange(-fit.bound, fit.bound + 1).expand(31, -1)
    found = staircase.level(accumulator, 0).double()
    unit = fit.exact_slope[:, None]
    level = accumulator * unit + fit.target[:, None] + offset
    # The bias is a whole number of accumulator units; slopes have 16 bits over 2000 units.
    tolerance = unit * (1.01 if kind == "qlinear" else 0.1)
    assert bool((found >= torch.floor(level - tolerance).clamp(-8, 7)).all())
    assert bool((found <= torch.floor(level + tolerance).clamp(-8, 7)).all())


@pytest.mark.parametrize("offset", [0.5, 0.0])
def test_the_usual_offsets_have_the_fits_they_always_had(offset):
    fit = line(offset)
    staircase, _ = fit_qlinear(fit, 3)
    slope = fit.exact_slope / 3
    expected = torch.floor((fit.target - 0.5) / slope) + 1 if offset == 0.0 else torch.round(fit.target / slope)
    limit = fit.saturation(slope * 3) * 3
    assert torch.equal(staircase.bias, torch.maximum(torch.minimum(expected, limit), -limit).to(torch.int32))


@pytest.mark.parametrize("offset", [0.5, 0.0, 0.3, -0.5])
def test_a_constant_channel_keeps_its_level(offset):
    fit = dataclasses.replace(line(offset), gain=torch.zeros(31, dtype=torch.float64))
    accumulator = torch.zeros(31, 1, dtype=torch.int64)
    expected = torch.floor(fit.target + offset).clamp(-8, 7).float()[:, None]
    for staircase, _ in (fit_qlinear(fit, 1), fit_shift(fit, ShiftArithmetic())):
        assert torch.equal(staircase.level(accumulator, 0), expected)


@pytest.mark.parametrize("mean", [0.5, 0.25, -0.25, 1.0])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
def test_training_in_mode_and_eval_mode_are_one_function(mean, rounding, target):
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    schedule = ana_fx.Schedule(mean="static", variance="static", mean_constant=mean)
    precision = ana_fx.Precision("int4", "uint4", "uint8", "int32", rounding=rounding)
    x = torch.randint(0, 64, (64, 6)) / 32.0
    qat = ana_fx.prepare(model, x, precision=precision, schedule=schedule, target=target, calibration=[x])
    qat.get_submodule("input_1_quantizer").set_scale(torch.tensor(1 / 32))
    for layer_map in layer_maps(qat).values():
        for quantizer in layer_map.quantizers():
            quantizer.set_scale(torch.full_like(quantizer.scale, 0.25))  # so that every number is exact
    ana_fx.Annealer(qat, 10)
    with torch.no_grad():
        trained, deployed = (torch.round(mode(x) * 16) for mode in (qat.train(), qat.eval()))  # in units of 0.25²
    assert trained.unique().numel() > 20
    # Half-way between two levels training rounds up, and onnxruntime's formula to even.
    is_tied = target == "onnxruntime" and (mean + (rounding == "floor") * 0.5) % 1 == 0
    assert float((trained == deployed).float().mean()) > (0.5 if is_tied else 0.999)


def flow(kind, precision, schedule, folder, *, target="onnxruntime"):
    """From a float model to all files, with real training steps in between."""
    qat = ana_fx.prepare(
        make_awkward(kind()), example(kind, signed=True), precision=precision, schedule=schedule, target=target
    )
    train(qat, INPUT_SHAPES[kind], 3, signed=True)
    return assert_no_integer_differs(qat.eval(), example(kind, 64, signed=True), folder)


@pytest.mark.parametrize(
    ("precision", "rounding"), [("all-ternary", "nearest"), ("int4", "floor"), ("int8", "nearest")]
)
@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_under_moved_thresholds(kind, precision, rounding, tmp_path):
    flow(kind, with_rounding(precision, rounding), ana_fx.preset("shifted-ste"), tmp_path)


@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_when_one_layer_has_a_mean_of_its_own(kind, tmp_path):
    own = {"*head*": ana_fx.LayerSchedule(mean_constant=-0.3), "*.0*": ana_fx.LayerSchedule(mean_constant=0.37)}
    schedule = ana_fx.Schedule(variance="static", mean_constant=0.1, overrides=own)
    flow(kind, "int4", schedule, tmp_path)


def test_a_static_mean_needs_no_annealing_before_it_is_converted():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.rand(16, 4)
    qat = ana_fx.prepare(model, x, schedule="shifted-ste", calibration=[x]).eval()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))
