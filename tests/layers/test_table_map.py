"""Functions of each number: a table with the level of each level, whatever the rounding, the width and the channel."""

import math

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.layers.quantizers import Quantizer
from ana_fx.layers.table_map import Elementwise, TableMap, look_up
from ana_fx.passes.canonical.canonical_dialect import FUNCTIONS
from ana_fx.precision.rounding import Rounding
from ana_fx.schedule.schedule import Schedule
from tests.graphs import Written

SETTINGS = {nn.PReLU: (3,), nn.Threshold: (0.1, 0.2), Elementwise: (torch.abs,)}
MODULES = {kind.__name__: kind(*SETTINGS.get(kind, ())) for kind in FUNCTIONS}
SCALE = torch.tensor(0.04)
SHAPE = (2, 3, 5)


def table_map(function, given="int8", wanted="int8", *, rounding=Rounding.NEAREST, y_scale=0.03) -> TableMap:
    made = TableMap(function).eval()
    made.input_types = (ana_fx.IntegerType.parse(given),)
    made.output_quantizer = Quantizer(ana_fx.IntegerType.parse(wanted), Schedule(), rounding)
    made.output_quantizer.set_scale(torch.tensor(y_scale))
    return made


def levels_of(kind):
    return torch.arange(kind.qmin, kind.qmax + 1)


PLAIN = {
    "sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + math.exp(-x))),
    "tanh": (nn.Tanh(), math.tanh),
    "silu": (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
    "gelu": (nn.GELU(), lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "hardswish": (nn.Hardswish(), lambda x: x * min(max(x + 3, 0), 6) / 6),
    "softplus": (nn.Softplus(), lambda x: math.log1p(math.exp(x))),
    "leaky relu": (nn.LeakyReLU(0.2), lambda x: max(x, 0.2 * x)),
    "elu": (nn.ELU(), lambda x: x if x > 0 else math.expm1(x)),
    "exp": (Elementwise(torch.exp), math.exp),
    "cube": (Elementwise(torch.pow, exponent=3), lambda x: x**3),
}


@pytest.mark.parametrize(("given", "wanted"), [("int8", "int8"), ("uint8", "uint4"), ("int4", "ternary")])
@pytest.mark.parametrize(("function", "plain"), PLAIN.values(), ids=PLAIN)
def test_a_table_holds_the_nearest_level_of_the_plain_function(function, plain, given, wanted):
    made = table_map(function, given, wanted)
    form, kind = made.integer_form((SCALE,), SHAPE), made.output_quantizer.integer_type
    step, scale = float(form.output_scale), float(SCALE)
    for n, level in zip(levels_of(made.input_types[0]).tolist(), form.table[0].tolist(), strict=True):
        exact = min(max(plain(n * scale) / step, kind.qmin), kind.qmax)
        assert abs(level - exact) <= 0.5 + 2.0**-30  # half a step; float64 is far nearer than the rest
    assert form.lowest == made.input_types[0].qmin


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("function", MODULES.values(), ids=MODULES)
def test_a_table_holds_the_levels_of_the_module_in_float64(function, rounding):
    made = table_map(function, rounding=rounding)
    x = (levels_of(made.input_types[0]) * SCALE.double()).expand(1, 3, -1)
    with torch.no_grad():
        steps = function.double()(x)[0] / made.output_quantizer.scale.double() + rounding.offset
    function.float()
    found = made.integer_form((SCALE,), SHAPE).table
    assert torch.equal(found.expand(3, -1), steps.floor().clamp(-128, 127).float())


@pytest.mark.parametrize("function", MODULES.values(), ids=MODULES)
def test_what_is_deployed_is_the_entry_of_each_level_and_channel(function):
    made = table_map(function)
    n, form = torch.randint(-128, 128, SHAPE), made.integer_form((SCALE,), SHAPE)
    y = made(n * SCALE, SCALE)
    for sample, channel, place in torch.cartesian_prod(*map(torch.arange, SHAPE)).tolist():
        row = channel if len(form.table) > 1 else 0
        wanted = form.table[row, int(n[sample, channel, place]) + 128] * form.output_scale
        assert y[sample, channel, place] == wanted


def test_only_a_function_with_channels_has_rows():
    rows = {name: len(table_map(function).integer_form((SCALE,), SHAPE).table) for name, function in MODULES.items()}
    assert rows == dict.fromkeys(MODULES, 1) | {"PReLU": 3}


def test_entries_are_looked_up_in_the_row_of_their_channel():
    table = torch.arange(6).reshape(2, 3)
    assert look_up(table, torch.tensor([[0, 2], [1, 1]])).tolist() == [[0, 5], [1, 4]]
    assert look_up(table[:1], torch.tensor([[0, 2], [1, 1]])).tolist() == [[0, 2], [1, 1]]


def test_a_trained_function_has_its_table_of_the_moment():
    made = table_map(nn.PReLU(3))
    first = made.integer_form((SCALE,), SHAPE).table
    nn.init.constant_(made.function.weight, -1.0)
    second = made.integer_form((SCALE,), SHAPE).table
    assert not torch.equal(first, second)
    assert torch.equal(second[0], table_map(Elementwise(torch.abs)).integer_form((SCALE,), SHAPE).table[0])


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(nn.Sigmoid(), True), (nn.Softplus(), True), (Elementwise(torch.square), True), (nn.GELU(), False)],
)
def test_a_function_knows_whether_it_gives_negative_numbers(function, wanted):
    assert TableMap(function).is_nonnegative(inputs_are=False) is wanted


def test_a_function_that_may_learn_to_give_negative_numbers_is_signed():
    assert not TableMap(nn.PReLU(3, init=-0.5)).is_nonnegative(inputs_are=False)


def test_a_table_says_which_function_it_is_of():
    assert TableMap(nn.SiLU()).operation == "table of silu"
    assert TableMap(Elementwise(torch.pow, exponent=2)).operation == "table of pow"


def test_a_table_of_an_unknown_scale_is_refused():
    made = TableMap(nn.SiLU())
    made.output_quantizer = Quantizer(ana_fx.IntegerType.parse("int8"), Schedule())
    with pytest.raises(ana_fx.CalibrationError, match="is not known yet"):
        made.integer_form((SCALE,), SHAPE)


def test_a_function_without_a_value_for_an_input_is_refused_at_conversion():
    model, x = Written(lambda m, x: torch.log1p(m.a(x)), a=nn.Linear(4, 4)), torch.rand(8, 4)
    nn.init.constant_(model.a.bias, 2.0)
    qat = ana_fx.prepare(model, x, calibration=[x])
    with pytest.raises(ana_fx.UnsupportedError, match=r"table of log1p has no value at -\d.*; clamp its input"):
        ana_fx.convert(qat)


def test_a_noisy_function_trains_and_an_annealed_one_is_deployed():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2)), torch.rand(16, 4)
    qat = ana_fx.prepare(model, x, schedule=Schedule(), calibration=[x])
    annealer = ana_fx.Annealer(qat, 10)
    qat(x).square().mean().backward()
    assert bool(qat.get_submodule("0").weight.grad.any())
    for _ in range(10):
        annealer.step()
    assert torch.equal(qat(x), qat.eval()(x))


@pytest.mark.parametrize("function", [torch.rsqrt, torch.sqrt, torch.reciprocal, torch.log])
def test_no_gradient_passes_where_there_is_no_slope(function):
    made = table_map(Elementwise(function)).train()
    x = torch.tensor([0.0, 0.04, 1.0], requires_grad=True)
    made.of_reals(x).backward(torch.tensor([0.0, 1.0, 1.0]))  # the quantizer's slope at infinity is 0
    plain = x.detach()[1:].requires_grad_()
    function(plain).sum().backward()
    assert x.grad[0] == 0
    assert torch.equal(x.grad[1:], plain.grad)


def test_functions_that_write_into_their_input_are_taken():
    assert table_map(nn.SiLU(inplace=True)).of_reals(torch.ones(2)).shape == (2,)


def test_root_mean_squares_by_hand_stay_finite_in_training():
    def by_hand(m, x):
        h = m.a(x)
        return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)

    model, x = Written(by_hand, a=nn.Linear(4, 4)), torch.cat([torch.rand(8, 4), torch.zeros(8, 4)])
    nn.init.zeros_(model.a.bias)
    qat = ana_fx.prepare(model, x, calibration=[x])
    qat(x).sum().backward()
    assert all(bool(torch.isfinite(each.grad).all()) for each in qat.parameters() if each.grad is not None)


def test_a_level_of_nan_is_the_lowest():
    made = table_map(nn.Sigmoid())
    x, scales = torch.tensor([math.nan, -128 * 0.04]), (SCALE,)
    first, lowest = made.deployed((x,), made.integer_form(scales, (2,)), scales)
    assert first == lowest
