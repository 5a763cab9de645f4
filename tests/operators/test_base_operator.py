"""Maps of one tensor: on integers they compute what they compute on reals, inside the range that is promised.

This covers `operators/identity.py`, `operators/linear.py`, `operators/reduce.py` and
`operators/transposed_convolution.py` too.
"""

import itertools
import math

import pytest
import torch

from ana_fx.operators.coefficients import Operands
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.operators.transposed_convolution import TransposedConvolution

LEVELS = [(-128, 127), (0, 255), (-1, 1), (0, 3)]


def random_levels(lo, hi, *shape):
    return torch.randint(lo, hi + 1, shape)


def corners(lo, hi, weight, shape):
    """Inputs that make the sums of the first output channel as large and as small as they get."""
    positive = (weight.flatten(1) > 0).long()[0].reshape(1, *shape)
    return [torch.where(positive == 1, *ends) for ends in ((hi, lo), (lo, hi))]


SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}
TRANSPOSED = {
    f"{rank}d-{stride}-{padding}-{extra}-{dilation}-{groups}": TransposedConvolution(
        *((each,) * rank for each in (stride, padding, extra, dilation)), groups, (3, 2, 1)[:rank]
    )
    for rank in SIZES
    for stride, padding, dilation, groups in itertools.product([1, 2, 3], [0, 1, 2], [1, 2], [1, 2])
    for extra in range(min(2, max(stride, dilation)))
}


def every(transposed):
    """As parameters."""
    return [pytest.param(each, id=name) for name, each in transposed.items()]


def operands(operator, lo=-128, hi=127):
    weight = torch.randint(-128, 128, (4, 6 // operator.groups, *operator.kernel))
    return random_levels(lo, hi, 2, 4, *SIZES[operator.rank]), weight


@pytest.mark.parametrize("operator", every(TRANSPOSED))
def test_a_transposed_convolution_is_a_convolution_of_spread_levels(operator):
    x, weight = operands(operator)
    wanted = operator.real((x.double(),), weight.double())  # exact: all sums are far below 2**53
    found = operator.accumulate((x.double(),), operator.integer_weight(weight).double())
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("operator", TRANSPOSED.values(), ids=TRANSPOSED)
def test_every_input_of_a_transposed_convolution_meets_every_weight_once(operator):
    _, weight = operands(operator)
    turned = operator.integer_weight(weight)
    assert turned.shape == (6, 4 // operator.groups, *operator.kernel)
    assert torch.equal(turned.flatten().sort().values, weight.flatten().sort().values)


def test_spread_levels_have_zeros_after_each_along_each_axis():
    operator = TransposedConvolution((2, 3), (0, 0), (0, 0), (1, 1), 1, (2, 2))
    spread = operator.spread(torch.tensor([[[[1, 2], [3, 4]]]]))
    assert spread[0, 0].tolist() == [[1, 0, 0, 2, 0, 0], [0] * 6, [3, 0, 0, 4, 0, 0], [0] * 6]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("operator", every(dict(list(TRANSPOSED.items())[::7])))
def test_accumulators_of_a_transposed_convolution_stay_in_their_range(operator, levels):
    x, weight = operands(operator, *levels)
    stored = operator.integer_weight(weight)
    low, high = operator.accumulator_range(stored, [levels], tuple(x.shape))
    for each in (x, torch.full_like(x, levels[0]), torch.full_like(x, levels[1])):
        found = operator.accumulate((each.double(),), stored.double()).transpose(0, 1).flatten(1)
        assert bool((found.amin(1) >= low).all())
        assert bool((found.amax(1) <= high).all())


@pytest.mark.parametrize("levels", LEVELS)
def test_the_range_of_a_linear_map_is_reached_at_its_corners(levels):
    weight = torch.randint(-128, 128, (3, 17))
    low, high = Linear().accumulator_range(weight, [levels], (1, 17))
    largest, smallest = (Linear().accumulate((x,), weight)[0, 0] for x in corners(*levels, weight, (17,)))
    assert (largest, smallest) == (high[0], low[0])
    assert max(-int(low.min()), int(high.max())) <= Linear().bound((max(-levels[0], levels[1]),), (1, 17), 17 * 128)


REDUCTIONS = [
    pytest.param(Reduce(axes, keepdim, is_mean), id=f"{'mean' if is_mean else 'sum'} of {axes}, keepdim={keepdim}")
    for axes in [(1,), (2,), (-1,), (1, 2), (2, 3), (-2, -1), (1, 2, 3), (1, -1)]
    for keepdim in (False, True)
    for is_mean in (False, True)
]
SHAPE = (3, 4, 5, 6)


@pytest.mark.parametrize("operator", REDUCTIONS)
def test_a_reduction_is_its_accumulator_divided(operator):
    x = random_levels(-128, 127, *SHAPE)
    accumulator = operator.accumulate((x,), None)
    assert torch.equal(accumulator, x.sum(operator.axes, keepdim=operator.keepdim))
    # one rounding of the sum by torch's mean, one of the division here: each half an ulp of at most 128
    wanted = operator.real((x.double(),), None)
    assert bool(((accumulator / operator.divisor(SHAPE) - wanted).abs() <= 128 * 2.0**-22).all())
    assert accumulator.shape == wanted.shape


@pytest.mark.parametrize("operator", REDUCTIONS)
def test_a_reduction_divides_by_its_terms_if_it_is_a_mean(operator):
    terms = math.prod(SHAPE[axis] for axis in operator.axes)
    assert operator.num_terms(SHAPE) == terms
    assert operator.divisor(SHAPE) == (terms if operator.is_mean else 1)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("operator", REDUCTIONS)
def test_the_range_of_a_reduction_is_reached_at_its_corners(operator, levels):
    low, high = operator.accumulator_range(None, [levels], SHAPE)
    ends = [int(operator.accumulate((torch.full(SHAPE, level),), None).flatten()[0]) for level in levels]
    assert [int(low), int(high)] == ends
    assert max(map(abs, ends)) == operator.bound((max(map(abs, levels)),), SHAPE)


@pytest.mark.parametrize("operator", [Identity(), Reduce((1,), False, True), Reduce((2, 3), True, False)])
def test_a_map_without_weight_has_a_unit_of_one_over_its_divisor(operator):
    scale = torch.tensor(0.25)
    found = operator.coefficients(Operands((scale,), SHAPE))
    assert (found.x_scale, found.integers) == (scale, None)
    assert found.unit.tolist() == [1 / operator.divisor(SHAPE)]


def test_a_map_with_a_weight_has_the_weights_scale_as_its_unit():
    operator = TransposedConvolution((2,), (0,), (0,), (1,), 1, (2,))
    weight, unit = torch.tensor([[[1.0, 2], [3, 4]]]), torch.tensor([0.5], dtype=torch.float64)
    found = operator.coefficients(Operands((torch.tensor(0.25),), (1, 1, 4), weight, unit))
    assert found.integers.tolist() == [[[2, 1]], [[4, 3]]]  # output channels first, turned around
    assert found.unit is unit


def test_channels_are_where_the_map_has_them():
    assert Linear().channel_axis(3) == 2
    assert Identity().channel_axis(4) == 1
    assert Reduce((1,), True, True).channel_axis(4) == 1


def convolution(padding: int = 0, groups: int = 1) -> Convolution:
    return Convolution((1, 1), ((padding, padding),) * 2, (1, 1), groups)


def test_an_affine_map_of_the_input_goes_into_convolutions_without_padding_alone():
    takes = [each.takes_input_affine for each in (convolution(), convolution(1), Linear(), Identity(), Sum())]
    assert takes == [True, False, False, False, False]


def test_the_weight_of_a_convolution_tells_the_channels_of_its_input():
    assert convolution(groups=3).num_input_channels(torch.zeros(6, 2, 3, 3)) == 6
    assert Linear().num_input_channels(torch.zeros(6, 2)) is None
    assert (convolution(groups=3).num_groups, Linear().num_groups) == (3, 1)


def test_only_a_sum_of_one_scale_knows_its_coefficients_before_its_scales():
    kinds = (Sum(), Sum().for_one_scale(True), Linear().for_one_scale(True), Maximum().for_one_scale(True))
    assert [each.largest_coefficient for each in kinds] == [None, 1, None, None]
    assert Sum().for_one_scale(True).for_one_scale(False) == Sum()


def test_magnitudes_are_those_of_its_own_factors():
    assert Sum((1.0, -0.5)).with_magnitudes() == Sum((1.0, 0.5))
    assert Linear().with_magnitudes() == Linear()
