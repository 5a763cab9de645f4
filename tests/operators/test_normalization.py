"""Normalisation in integers: the formula of the module, near the real one, and never beyond its bound."""

import math
from decimal import Decimal

import pytest
import torch
import torch.nn.functional as F

from ana_fx.operators.coefficients import Operands
from ana_fx.operators.normalization import FRACTION_BITS, MANTISSA_BITS, MAX_EXPONENT, Normalization, root_table

UNIT = 2.0**-FRACTION_BITS
EPSILON = 1e-5
SCALE = torch.tensor(0.03)
ROWS = {
    "signed": lambda: torch.randint(-128, 128, (7, 32)),
    "unsigned": lambda: torch.randint(0, 256, (7, 33)),
    "ternary": lambda: torch.randint(-1, 2, (7, 5)),
    "long": lambda: torch.randint(-128, 128, (2, 3000)),
    "of one number": lambda: torch.randint(-128, 128, (7, 1)),
    "of two numbers": lambda: torch.randint(-128, 128, (7, 2)),
    "nearly constant": lambda: 200 + torch.eye(9, dtype=torch.int64),
    "far from zero": lambda: torch.randint(250, 256, (7, 40)),
    "with one large number": lambda: 255 * torch.eye(40, dtype=torch.int64)[:5],
    "of extremes": lambda: torch.tensor([[-128, 127] * 20, [0, 255] * 20]),
    "constant": lambda: torch.tensor([[0], [1], [-128], [255]]).expand(-1, 12),
}


def plainly(row: list[int], epsilon: int, *, is_centered: bool) -> list[int]:
    """The formula at the top of `ana_fx.operators.normalization`, in Python's integers."""
    length, total = len(row), sum(row) if is_centered else 0
    variance = length * sum(n * n for n in row) - total * total + epsilon
    exponent = next(j for j in range(100) if variance < 4 ** (j + 1))
    mantissa = variance * 2**10 // 4**exponent
    root = round(2**20 / (Decimal(mantissa) + Decimal("0.5")).sqrt())
    return [(length * n - total) * root // 2 ** (5 + exponent) for n in row]


def epsilon_of(normalization: Normalization, length: int) -> torch.Tensor:
    return normalization.coefficients(Operands((SCALE,), (1, length))).integers


@pytest.mark.parametrize("is_centered", [True, False])
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_rows_are_normalised_by_the_formula(make, is_centered):
    n, normalization = make(), Normalization(EPSILON, is_centered=is_centered)
    epsilon = epsilon_of(normalization, n.shape[1])
    wanted = [plainly(row, int(epsilon), is_centered=is_centered) for row in n.tolist()]
    assert normalization.accumulate((n,), epsilon).tolist() == wanted


@pytest.mark.parametrize("is_centered", [True, False])
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_normalised_rows_are_near_the_real_ones(make, is_centered):
    n, normalization = make(), Normalization(EPSILON, is_centered=is_centered)
    length = n.shape[1]
    epsilon = epsilon_of(normalization, length)
    wanted = normalization.real((n * SCALE.double(),), None)
    found = normalization.accumulate((n,), epsilon) * UNIT
    # the mantissa is cut by half of one in 2**10, so the root by a part of 2**-12; it is rounded by one in 2**15; the
    # epsilon is rounded to a whole number, at least 1, which moves the root by half of its part of the variance
    real_epsilon = length * length * EPSILON / SCALE.double() ** 2
    mean = n.double().mean(1, keepdim=True) if is_centered else 0.0
    variance = length * ((n - mean) ** 2).sum(1, keepdim=True) + torch.minimum(epsilon, real_epsilon)
    part = 2.0**-12 + 2.0**-15 + (epsilon - real_epsilon).abs() / (2 * variance)
    # and the floor takes less than one unit; float64 itself is off by far less than 2**-30
    assert bool(((found - wanted).abs() <= wanted.abs() * part * (1 + 2.0**-10) + UNIT + 2.0**-30).all())


@pytest.mark.parametrize("is_centered", [True, False])
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
def test_no_row_exceeds_the_bound(make, is_centered):
    n, normalization = make(), Normalization(EPSILON, is_centered=is_centered)
    found = normalization.accumulate((n,), torch.tensor(1))
    bound = normalization.bound((), tuple(n.shape))
    low, high = normalization.accumulator_range(None, [(-128, 255)], tuple(n.shape))
    assert (int(low), int(high)) == (-bound, bound)
    assert int(found.abs().max()) <= bound


@pytest.mark.parametrize("length", [2, 3, 10, 100, 1000, 50_000])
def test_the_bound_is_nearly_reached_by_one_number_that_differs(length):
    row = torch.zeros(1, length, dtype=torch.int64)
    row[0, 0] = 255
    found = int(Normalization(EPSILON).accumulate((row,), torch.tensor(1)).max())
    bound = Normalization(EPSILON).bound((), (1, length))
    assert math.sqrt((length - 1) / length) * 0.99 * bound <= found + 2 <= bound + 2


@pytest.mark.parametrize("level", [-128, -1, 0, 1, 255])
def test_a_constant_row_is_normalised_to_zeros(level):
    found = Normalization(EPSILON).accumulate((torch.full((3, 17), level),), torch.tensor(1))
    assert not found.any()


def test_rows_of_zeros_stay_zeros_without_a_mean_to_subtract():
    found = Normalization(EPSILON, is_centered=False).accumulate((torch.zeros(3, 17),), torch.tensor(1))
    assert not found.any()


@pytest.mark.parametrize("is_centered", [True, False])
@pytest.mark.parametrize("magnitude", [127, 255])
def test_the_longest_row_that_fits_is_still_exact(magnitude, is_centered):
    normalization = Normalization(EPSILON, is_centered=is_centered)
    length = normalization.longest_row(magnitude)
    epsilon = 4 ** (MAX_EXPONENT - 1)
    for n in (torch.full((1, length), magnitude), torch.arange(length)[None] % 2 * magnitude):
        found = normalization.accumulate((n,), torch.tensor(epsilon))[0, :2].tolist()
        assert found == plainly(n[0].tolist(), epsilon, is_centered=is_centered)[:2]


def test_the_root_table_holds_the_roots_of_all_mantissas():
    table = root_table()
    assert len(table) == 3 * 2**MANTISSA_BITS
    for mantissa in range(2**10, 2**12, 17):
        assert int(table[mantissa - 2**10]) == round(2**20 / (Decimal(mantissa) + Decimal("0.5")).sqrt())


@pytest.mark.parametrize("scale", [1e-6, 0.003, 0.5, 1e6])
@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-5, 1.0, 1e9])
def test_the_epsilon_is_a_whole_number_that_fits(epsilon, scale):
    weight = Normalization(epsilon).coefficients(Operands((torch.tensor(scale),), (1, 10))).integers
    wanted = 100 * epsilon / float(torch.tensor(scale)) ** 2
    assert weight.dtype == torch.int64
    # rounded to a whole number; a product of three float64 roundings
    limited = min(max(wanted, 1.0), 4.0 ** (MAX_EXPONENT - 1))
    assert abs(int(weight) - limited) <= 0.5 + limited * 2.0**-50


X = torch.randn(2, 6, 5, 4)
REALS = {
    "layer norm": (Normalization(EPSILON, 1), lambda x: F.layer_norm(x, (4,), eps=EPSILON)),
    "layer norm of all axes": (Normalization(EPSILON, 3), lambda x: F.layer_norm(x, (6, 5, 4), eps=EPSILON)),
    "root mean square norm": (Normalization(EPSILON, 1, is_centered=False), lambda x: F.rms_norm(x, (4,), eps=EPSILON)),
    "group norm": (Normalization(EPSILON, 0, 3), lambda x: F.group_norm(x, 3, eps=EPSILON)),
    "instance norm": (Normalization(EPSILON, 0, 6), lambda x: F.instance_norm(x, eps=EPSILON)),
}


@pytest.mark.parametrize(("normalization", "function"), REALS.values(), ids=REALS)
def test_real_rows_are_those_of_torch(normalization, function):
    x = X.double()
    # float64 sums of at most 120 numbers in another order: off by 120 ulp of numbers below 2**4
    assert float((normalization.real((x,), None) - function(x)).abs().max()) <= 120 * 2.0**-48


@pytest.mark.parametrize(("normalization", "function"), REALS.values(), ids=REALS)
def test_integer_rows_are_those_of_torch(normalization, function):
    n = torch.randint(-128, 128, X.shape)
    shape = normalization.row_shape(tuple(n.shape))
    found = normalization.accumulate((n,), epsilon_of(normalization, shape[-1])) * UNIT
    wanted = function(n * SCALE.double())
    # a part of 2**-11 for the root (see above; the variance of these rows is far above the epsilon) and one unit
    assert found.shape == n.shape
    assert bool(((found - wanted).abs() <= wanted.abs() * 2.0**-11 + UNIT).all())


def test_channels_are_where_the_norm_has_them():
    assert Normalization(EPSILON, 1).channel_axis(3) == 2
    assert Normalization(EPSILON, 0, 2).channel_axis(4) == 1


@pytest.mark.parametrize("is_centered", [True, False])
def test_weight_and_bias_of_the_channels_follow_the_rows(is_centered):
    normalization, x = Normalization(EPSILON, is_centered=is_centered), torch.randn(3, 5, 8)
    weight, bias = torch.randn(8), torch.randn(8)
    apart = normalization.real((x,), None) * weight + bias
    assert torch.allclose(normalization.real((x,), weight, bias), apart, rtol=0, atol=2.0**-20)  # a few roundings of 4
