"""Maps of two tensors: on integers they compute what they compute on reals, inside the range that is promised.

This covers `operators/matmul.py`, `operators/product.py` and `operators/sum.py` too.
"""

import itertools

import pytest
import torch

from ana_fx.operators.accumulate import accumulate
from ana_fx.operators.coefficients import Operands
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.product import Product
from ana_fx.operators.sum import Sum

LEVELS = [((-128, 127), (0, 255)), ((0, 255), (0, 255)), ((-128, 127), (-128, 127)), ((-1, 1), (0, 3))]
FACTORS = [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]
PRODUCTS = {
    "product": (Product(), (2, 3, 4), (2, 3, 4)),
    "broadcast product": (Product(), (2, 3, 4), (2, 3, 1)),
    "broadcast first": (Product(), (2, 1, 4), (2, 3, 4)),
    "matrix product": (MatMul(), (2, 3, 4), (2, 4, 5)),
    "batched matrix product": (MatMul(), (2, 2, 3, 7), (2, 2, 7, 2)),
    "broadcast matrix product": (MatMul(), (2, 3, 4), (4, 5)),
}


def random_levels(levels, shape):
    return torch.randint(levels[0], levels[1] + 1, shape)


def scales(first, second):
    return torch.tensor(first), torch.tensor(second)


@pytest.mark.parametrize("factors", FACTORS)
def test_a_sum_is_the_weighted_sum_of_reals(factors):
    x, y = torch.randn(2, 3, 4), torch.randn(2, 1, 4)
    wanted = factors[0] * x + factors[1] * y
    assert torch.equal(Sum(factors).real((x, y), None), wanted)


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("pair", [(0.1, 0.1), (0.1, 0.03), (3.0, 0.2), (1e-3, 2.0)])
def test_coefficients_of_a_sum_are_the_ratios_of_scales_in_parts_of_a_level(pair, factors):
    found = Sum(factors).coefficients(Operands(scales(*pair), (2, 3), output_scale=torch.tensor(0.1)))
    assert found.x_scale == torch.tensor(0.1)
    (unit,) = found.unit.tolist()
    for coefficient, scale, factor in zip(found.integers.tolist(), pair, factors, strict=True):
        wanted = factor * scale / 0.1 / unit
        # rounded to a whole number, at least 1 and at most 4095; scales are float32, off by 2**-24
        limited = max(-4095.0, min(4095.0, wanted))
        assert abs(coefficient - limited) <= max(0.5, 1 - abs(wanted)) + abs(limited) * 2.0**-22


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("levels", LEVELS)
def test_a_sum_of_levels_is_that_of_the_reals_they_stand_for(levels, factors):
    x, y = (random_levels(each, (2, 3, 4)) for each in levels)
    found = Sum(factors).coefficients(Operands(scales(0.5, 0.25), (2, 3, 4), output_scale=torch.tensor(0.5)))
    assert found.integers.tolist() == [127 * factors[0], 64 * factors[1]]  # 63.5 to the even number
    exact = Sum(factors).coefficients(Operands(scales(0.5, 1.0), (2, 3, 4), output_scale=torch.tensor(0.5)))
    accumulator = Sum(factors).accumulate((x, y), exact.integers.long())
    assert torch.equal(accumulator, 127 * Sum(factors).real((x, 2 * y), None).long())


@pytest.mark.parametrize("coefficients", [(127, 127), (1, -4095), (-64, 3)])
@pytest.mark.parametrize("levels", LEVELS)
def test_the_range_of_a_sum_is_reached_at_its_corners(levels, coefficients):
    weight = torch.tensor(coefficients)
    low, high = Sum().accumulator_range(weight, levels, (2, 3))
    ends = [int(Sum().accumulate(torch.tensor(corner), weight)) for corner in itertools.product(*levels)]
    assert (int(low), int(high)) == (min(ends), max(ends))
    magnitudes = tuple(max(-lo, hi) for lo, hi in levels)
    assert max(map(abs, ends)) <= Sum().bound(magnitudes, (2, 3))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("operator", "first", "second"), PRODUCTS.values(), ids=PRODUCTS)
def test_products_are_exact_and_broadcast(operator, first, second, levels):
    x, y = random_levels(levels[0], first), random_levels(levels[1], second)
    wanted = (x @ y) if isinstance(operator, MatMul) else x * y  # int64
    for bound in (operator.bound((255, 255), first), 2**28):  # a larger bound chooses other kernels
        assert torch.equal(accumulate(operator, (x, y), None, bound=bound, integer=torch.int64), wanted)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("operator", "first", "second"), PRODUCTS.values(), ids=PRODUCTS)
def test_the_range_of_a_product_is_reached_at_its_corners(operator, first, second, levels):
    low, high = operator.accumulator_range(None, levels, first)
    ends = [
        int(operator.accumulate((torch.full(first, a), torch.full(second, b)), None).flatten()[0])
        for a, b in itertools.product(*levels)
    ]
    assert (int(low), int(high)) == (min(ends), max(ends))
    magnitudes = tuple(max(-lo, hi) for lo, hi in levels)
    assert max(map(abs, ends)) <= operator.bound(magnitudes, first)


@pytest.mark.parametrize("operator", [Product(), MatMul()])
def test_one_unit_of_a_product_is_the_product_of_both_scales(operator):
    found = operator.coefficients(Operands(scales(0.5, 0.25), (2, 3), output_scale=torch.tensor(1.0)))
    assert (found.x_scale, found.integers, found.unit.tolist()) == (torch.tensor(0.5), None, [0.25])


def test_pairs_take_two_inputs_and_store_no_weight():
    for operator in (Sum(), Product(), MatMul()):
        assert operator.num_inputs == 2
        assert not operator.has_weight
