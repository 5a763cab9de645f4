"""Softmax in integers: the formula of the module, near the real one, at all extremes."""

import math

import pytest
import torch

import ana_fx
from ana_fx.layers.quantizers import Quantizer
from ana_fx.layers.softmax_map import MAX_TERMS, SoftmaxMap, integer_softmax
from ana_fx.precision.rounding import Rounding
from ana_fx.schedule.schedule import Schedule

ROUNDINGS = pytest.mark.parametrize("rounding", Rounding)
SCALES = pytest.mark.parametrize("scale", [1e-4, 0.02, 0.1, 1.0, 30.0])
WIDTHS = pytest.mark.parametrize("bits", [2, 4, 8])
ROWS = {
    "signed": lambda: torch.randint(-128, 128, (9, 12)),
    "near each other": lambda: torch.randint(100, 104, (9, 12)),
    "all equal": lambda: torch.full((3, 10), 127),
    "of one number": lambda: torch.randint(-128, 128, (9, 1)),
    "with one winner": lambda: torch.full((4, 50), -128).index_fill_(1, torch.tensor([7]), 127),
    "with two winners": lambda: torch.full((4, 50), -128).index_fill_(1, torch.tensor([0, 49]), 127),
    "long": lambda: torch.randint(-128, 128, (2, 2000)),
}


def softmax_map(bits=8, rounding=Rounding.NEAREST, axis=-1) -> SoftmaxMap:
    made = SoftmaxMap(axis).eval()
    made.input_types = (ana_fx.IntegerType.parse("int8"),)
    made.output_quantizer = Quantizer(ana_fx.IntegerType(bits, signed=False), Schedule(), rounding)
    made.output_quantizer.set_scale(torch.tensor(1.0 / made.output_quantizer.integer_type.qmax))
    return made


def plainly(row: list[int], scale: float, highest: int, rounding: Rounding) -> list[int]:
    """The formula at the top of `ana_fx.layers.softmax_map`, in Python's integers."""
    e = [round(2**15 * math.exp(-scale * (max(row) - n))) for n in row]
    if rounding is Rounding.NEAREST:
        return [(2 * highest * each + sum(e)) // (2 * sum(e)) for each in e]
    return [highest * each // sum(e) for each in e]


def deployed(n, scale, bits, rounding):
    made, scale = softmax_map(bits, rounding), torch.tensor(scale)
    form = made.integer_form((scale,), tuple(n.shape))
    return integer_softmax(n, -1, form.table, form.highest, form.is_nearest), float(scale), form.highest


@ROUNDINGS
@SCALES
@WIDTHS
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_rows_are_those_of_the_formula(make, bits, scale, rounding):
    n = make()
    found, scale, highest = deployed(n, scale, bits, rounding)
    assert found.tolist() == [plainly(row, scale, highest, rounding) for row in n.tolist()]


@ROUNDINGS
@SCALES
@WIDTHS
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_rows_are_near_the_real_softmax_and_sum_to_nearly_one(make, bits, scale, rounding):
    n = make()
    found, scale, highest = deployed(n, scale, bits, rounding)
    assert int(found.min()) >= 0
    assert int(found.max()) <= highest
    wanted = torch.softmax(n * scale, -1, dtype=torch.float64)
    terms = n.shape[-1]
    # exponentials are rounded by half a part of 2**15, of which their sum has at least 2**15; then quotients by half a
    # level, or by less than one with floor
    cut = 0.5 if rounding is Rounding.NEAREST else 1.0
    assert float((found - highest * wanted).abs().max()) <= cut + highest * (1 + terms) / 2**16 + 2.0**-30
    assert bool(((found.sum(-1) - highest).abs() <= cut * terms).all())


@ROUNDINGS
def test_a_softmax_is_monotone_and_blind_to_a_shift(rounding):
    n = torch.arange(-60, 60)[None]
    found, *_ = deployed(n, 0.05, 8, rounding)
    assert bool((found.diff() >= 0).all())
    assert torch.equal(found, deployed(n + 67, 0.05, 8, rounding)[0])


def test_the_most_terms_stay_inside_32_bits():
    n = torch.zeros(1, MAX_TERMS, dtype=torch.int64)
    form = softmax_map().integer_form((torch.tensor(0.1),), (1, MAX_TERMS))
    e = form.table[n.amax(-1, keepdim=True) - n]
    assert int(2 * form.highest * e.max() + e.sum()) < 2**31
    assert int(2 * e.sum()) < 2**31
    assert int(form.table.max()) == 2**15


@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_what_is_deployed_is_the_softmax_over_its_axis(axis):
    made, scale = softmax_map(axis=axis), torch.tensor(0.1)
    n = torch.randint(-128, 128, (2, 5, 7))
    y = made(n * scale, scale)
    form = made.integer_form((scale,), tuple(n.shape))
    moved = n.movedim(axis, -1)
    wanted = integer_softmax(moved, -1, form.table, form.highest, form.is_nearest).movedim(-1, axis)
    assert torch.equal(y, wanted * form.output_scale)
    assert form.output_scale == torch.tensor(1.0 / 255)


def test_too_many_terms_are_refused_at_conversion():
    x = torch.rand(2, MAX_TERMS + 1)
    qat = ana_fx.prepare(torch.nn.Softmax(1), x, calibration=[x])
    with pytest.raises(
        ana_fx.AccumulatorError, match=f"softmax over {MAX_TERMS + 1} numbers, needed at most {MAX_TERMS}"
    ):
        ana_fx.convert(qat)


@pytest.mark.parametrize("axis", [0, -2])
def test_a_softmax_over_the_batch_is_refused(axis):
    x = torch.rand(8, 4)
    with pytest.raises(ana_fx.AnaFxError):
        ana_fx.convert(ana_fx.prepare(torch.nn.Softmax(axis), x, calibration=[x]))


def test_the_scale_of_a_softmax_is_fixed_and_unsigned_whatever_is_learned():
    x = torch.rand(8, 6)
    qat = ana_fx.prepare(
        torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Softmax(1)),
        x,
        precision=ana_fx.Precision("int4", "int4", output="auto"),
        schedule=ana_fx.Schedule(learn_scales=True),
    )
    quantizer = qat.get_submodule("1").output_quantizer
    assert not quantizer.integer_type.signed
    assert quantizer.is_calibrated
    assert quantizer.scale == torch.tensor(1.0 / quantizer.integer_type.qmax)
    assert not quantizer.scale.requires_grad
