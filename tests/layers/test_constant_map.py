"""Constants between quantizers: noisy in training, integers when deployed, of any float tensor of the model."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.constant_map import ConstantMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.program.integer_modules import IntegerConstant
from ana_fx.schedule.schedule import Schedule
from tests.graphs import Written

X = torch.rand(16, 4)


def constant_map(scale=0.1) -> ConstantMap:
    made = ConstantMap()
    made.output_quantizer = Quantizer(ana_fx.IntegerType.parse("int8"), Schedule())
    made.output_quantizer.set_scale(torch.tensor(scale))
    return made


def with_constant(value: nn.Parameter | nn.Buffer) -> nn.Module:
    return Written(
        lambda m, x: m.head((m.stem(x) + m.row).relu()), stem=nn.Linear(4, 4), head=nn.Linear(4, 2), row=value
    )


def only_constant(qat: torch.fx.GraphModule) -> ConstantMap:
    (found,) = (each for each in layer_maps(qat).values() if isinstance(each, ConstantMap))
    return found


def test_a_constant_is_deployed_as_its_levels_times_the_scale():
    x, made = torch.linspace(-15, 15, 301), constant_map().eval()
    scale = torch.tensor(0.1)
    wanted = torch.floor(x / scale + 0.5).clamp(-128, 127)
    assert torch.equal(made(x), wanted * scale)
    assert made.integer_form((), (301,)).output_scale == scale
    assert made.operation == "constant"


def test_a_constant_of_an_unknown_scale_is_refused():
    made = ConstantMap().eval()
    made.output_quantizer = Quantizer(ana_fx.IntegerType.parse("int8"), Schedule())
    with pytest.raises(ana_fx.CalibrationError, match="is not known yet"):
        made(torch.ones(3))


def test_its_scale_comes_from_the_constant_and_not_from_data():
    value = torch.tensor([0.0, 0.5, 1.0, -1.27])
    quantizer = only_constant(ana_fx.prepare(with_constant(nn.Buffer(value)), X)).output_quantizer
    assert quantizer.is_calibrated
    assert 64 <= int(quantizer.quantize(value).abs().max()) <= 128  # more than half of the range is used


@pytest.mark.parametrize(
    ("value", "signed"),
    [
        (nn.Buffer(torch.ones(4)), False),
        (nn.Buffer(-torch.ones(4)), True),
        (nn.Parameter(torch.ones(4)), True),  # it may learn to be negative
    ],
)
def test_only_a_constant_that_stays_nonnegative_is_unsigned(value, signed):
    assert only_constant(ana_fx.prepare(with_constant(value), X)).output_quantizer.integer_type.signed is signed


@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
def test_a_constant_has_eight_bits_at_every_precision(precision):
    qat = ana_fx.prepare(with_constant(nn.Buffer(torch.randn(4))), X, precision=precision)
    assert only_constant(qat).output_quantizer.integer_type.bits == 8


def test_a_parameter_behind_a_constant_learns():
    qat = ana_fx.prepare(with_constant(nn.Parameter(torch.randn(4))), X, calibration=[X])
    ana_fx.Annealer(qat, 10)
    qat(X).square().sum().backward()
    assert bool(qat.row.grad.any())


def test_the_program_holds_its_integers():
    model = Written(
        lambda m, x: m.stem(x) + torch.tanh(m.row) * m.gain,
        stem=nn.Linear(4, 4),
        row=nn.Parameter(torch.randn(4)),
        gain=nn.Buffer(torch.tensor(2.0)),
    )
    qat = ana_fx.prepare(model, X, calibration=[X]).eval()
    program = ana_fx.convert(qat)
    (constant,) = (each for each in program.modules() if isinstance(each, IntegerConstant))
    assert constant.levels.dtype == torch.int8
    value, quantizer = torch.tanh(model.row.detach()) * 2.0, only_constant(qat).output_quantizer
    assert torch.equal(constant.levels.float(), quantizer.quantize(value))


def test_the_program_holds_nothing_of_what_a_constant_was_computed_from():
    program = ana_fx.convert(ana_fx.prepare(with_constant(nn.Parameter(torch.randn(4))), X, calibration=[X]))
    assert "row" not in program.state_dict()


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_a_constant_that_is_not_finite_is_refused(number):
    with pytest.raises(ana_fx.UnsupportedError, match="numbers that are not finite"):
        ana_fx.prepare(with_constant(nn.Buffer(torch.tensor([0.0, number, 1, 2]))), X)
