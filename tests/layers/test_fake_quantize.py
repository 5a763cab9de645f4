"""The noisy quantizer against the sum over all of its thresholds, written out in float64.

This covers `numerics/levels.py` too.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ana_fx.layers.fake_quantize import fake_quantize, quantize
from ana_fx.numerics.levels import Levels
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.noise import NOISES, Normal, Uniform

FAMILIES = list(NOISES.values())
OFFSETS = [0.5, 0.0]
HALF_WIDTHS = [0.5, 0.2, 0.01]
ULP = 2.0**-24  # relative error of one float32 rounding

COUNTS = torch.arange(2, 257)[:, None]
ALL_LEVELS = {
    "signed": (-(COUNTS // 2), COUNTS - COUNTS // 2 - 1),
    "unsigned": (torch.zeros_like(COUNTS), COUNTS - 1),
}


def reference(u, mean, std, levels, family):
    """E[σ(u − ν)] and its derivative: every threshold is looked at; u is [..., points]."""
    lo, hi = (torch.as_tensor(level)[..., None] for level in levels[:2])
    level = torch.arange(int(lo.min()) + 1, int(hi.max()) + 1)
    exists = (level > lo) & (level <= hi)
    z = (u.double()[..., None] - float(mean) - (level - levels.offset)) / float(std)
    expectation = lo[..., 0] + (family.cdf(z) * exists).sum(-1)
    return expectation, (family.pdf(z) * exists).sum(-1) / float(std)


def noisy(x, levels, family, *, half_width=0.5, mean=0.0, scale=1.0, strategy=Strategy.EXPECTATION, factor=1.0):
    """`fake_quantize` with plain numbers."""
    std = torch.tensor(family.std_of(half_width))
    return fake_quantize(
        x,
        torch.as_tensor(scale),
        torch.tensor(mean),
        std,
        levels=levels,
        noise=family,
        strategy=strategy,
        num_neighbours=family.num_neighbours(0.5),
        scale_gradient=factor,
    )


def gradient(x, levels, family, **settings):
    """The gradient of the sum of `noisy` with respect to x."""
    x = x.clone().requires_grad_()
    noisy(x, levels, family, **settings).sum().backward()
    return x.grad


def points(lo, hi, count=10):
    """Odd multiples of 1/128 around every level: exact in float32, and on no edge of compact noise."""
    position = torch.rand(max(len(torch.as_tensor(lo).flatten()), 1), count)
    return torch.floor((lo - 2 + (hi - lo + 4) * position) * 64) / 64 + 1 / 128


@pytest.mark.parametrize("sign", ALL_LEVELS)
@pytest.mark.parametrize("half_width", HALF_WIDTHS)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_expectation_and_gradient_are_the_sums_over_all_thresholds(family, offset, half_width, sign):
    lo, hi = ALL_LEVELS[sign]
    levels, u, scale, mean = Levels(lo, hi, offset), points(lo, hi), 0.125, -0.25
    x = (u * scale).requires_grad_()
    out = noisy(x, levels, family, half_width=half_width, mean=mean, scale=scale)
    out.sum().backward()
    std = torch.tensor(family.std_of(half_width))
    expectation, slope = reference(u, mean, std, levels, family)
    # At most six thresholds are added to a level, and each sum is rounded at the size of the levels.
    assert bool(((out.detach() / scale - expectation).abs() <= 8 * ULP * COUNTS).all())
    # Densities below 2**-22 lie out of reach; the others are rounded a few times.
    assert float((x.grad - slope).abs().max() * std) <= 32 * ULP


@pytest.mark.parametrize("count", [2, 3, 4, 15, 16, 255, 256])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_integer_levels_are_the_same_as_tensors_of_them(family, offset, count):
    lo, hi = -(count // 2), count - count // 2 - 1
    x = points(lo, hi)
    ints, tensors = Levels(lo, hi, offset), Levels(torch.tensor(lo), torch.tensor(hi), offset)
    for strategy in (Strategy.EXPECTATION, Strategy.MODE):
        assert torch.equal(noisy(x, ints, family, strategy=strategy), noisy(x, tensors, family, strategy=strategy))
    assert torch.equal(gradient(x, ints, family), gradient(x, tensors, family))


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_level_is_constant(family, strategy):
    """What a large step leaves of a ReLU6: both ends are level 0."""
    levels = Levels(torch.tensor(0), torch.tensor(0), 0.5)
    x = torch.linspace(-3, 3, 100)
    assert not noisy(x, levels, family, strategy=strategy).any()
    assert not gradient(x, levels, family, strategy=strategy).any()


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(2, 256),
    family=st.sampled_from(FAMILIES),
    offset=st.sampled_from(OFFSETS),
    half_width=st.floats(1e-4, 0.5),
    exponent=st.floats(-10.0, 10.0),
)
def test_expectation_rises_and_stays_within_the_levels(seed, count, family, offset, half_width, exponent):
    torch.manual_seed(seed)
    levels, scale = Levels(-(count // 2), count - count // 2 - 1, offset), 2.0**exponent
    x = ((torch.rand(200) - 0.5) * (count + 4) * scale).sort().values
    steps = noisy(x, levels, family, half_width=half_width, scale=scale).double() / scale
    rounding = 10 * ULP * count  # as above, and the scale goes in and out
    assert bool((steps.diff() >= -2 * rounding).all())
    assert float(steps.min()) >= levels.lo - rounding
    assert float(steps.max()) <= levels.hi + rounding


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_expectation_tends_to_the_quantizer_as_the_noise_vanishes(family, offset):
    levels = Levels(-8, 7, offset)
    x = points(-8, 7, 200)
    gap = 1 / 128  # no point is nearer to a threshold
    for half_width in (0.5, 0.05, 0.005, 0.0005):
        error = (noisy(x, levels, family, half_width=half_width) - quantize(x, torch.tensor(1.0), levels)).abs().max()
        z = torch.tensor(-gap / family.std_of(half_width), dtype=torch.float64)
        # Thresholds on either side stray by one tail each; those further away by less than all tails together.
        assert float(error) <= 2 * float(family.cdf(z)) + 64 * ULP
    assert float(error) <= 64 * ULP


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_the_finite_difference_of_the_expectation(family, offset):
    levels, h = Levels(-2, 1, offset), 2.0**-9
    u = points(-2, 1, 200)
    difference = (noisy(u + h, levels, family) - noisy(u - h, levels, family)) / (2 * h)
    third = 2 * 0.75 / family.std_of(0.5) ** 3  # two thresholds count, and no third derivative of a cdf exceeds 0.75
    tolerance = h * h / 6 * third + 8 * ULP * 4 / (2 * h)
    torch.testing.assert_close(gradient(u, levels, family), difference, rtol=0, atol=tolerance)


@pytest.mark.parametrize("half_width", HALF_WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_strategies_have_the_gradient_of_the_expectation(family, half_width):
    levels, x = Levels(-8, 7, 0.5), torch.randn(1000) * 5
    expected = gradient(x, levels, family, half_width=half_width, mean=-0.2)
    for strategy in (Strategy.MODE, Strategy.RANDOM):
        assert torch.equal(gradient(x, levels, family, half_width=half_width, mean=-0.2, strategy=strategy), expected)


@pytest.mark.parametrize("half_width", [0.5, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_random_levels_average_to_the_expectation(family, half_width):
    levels, count = Levels(-1, 2, 0.5), 20_000
    u = torch.linspace(-2.5, 3.5, 25)
    draws = noisy(u.expand(count, -1), levels, family, half_width=half_width, mean=0.1, strategy=Strategy.RANDOM)
    expectation, _ = reference(u, 0.1, family.std_of(half_width), levels, family)
    assert set(draws.unique().tolist()) <= {-1.0, 0.0, 1.0, 2.0}
    # Bernstein: P(|average − E| > ε) < 1e-9 for these ε, since draws lie within 3 of E.
    log = math.log(2e9)
    tolerance = torch.sqrt(2 * draws.double().var(0) * log / count) + 3 * log / count
    assert bool(((draws.double().mean(0) - expectation).abs() <= tolerance).all())


@pytest.mark.parametrize("mean", [0.0, -0.5, 0.25])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_mode_is_the_quantizer_of_the_shifted_input(family, offset, mean):
    x = points(-8, 7, 500)
    found = noisy(x, Levels(-8, 7, offset), family, mean=mean, strategy=Strategy.MODE)
    assert torch.equal(found, torch.floor(x - mean + offset).clamp(-8, 7))


@pytest.mark.parametrize("half_width", HALF_WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_mode_is_the_most_likely_level_of_noise_no_wider_than_a_bin(family, half_width):
    levels, u = Levels(-3, 3, 0.5), points(-3, 3, 500)
    mode = noisy(u, levels, family, half_width=half_width, strategy=Strategy.MODE)
    z = (u.double()[..., None] - (torch.arange(-2, 4) - 0.5)) / family.std_of(half_width)
    reached = torch.nn.functional.pad(family.cdf(z), (1, 0), value=1.0)  # P(level >= k)
    probability = reached - torch.nn.functional.pad(reached[..., 1:], (0, 1))
    likelihood = probability.gather(-1, (mode.long() + 3)[..., None])[..., 0]
    assert bool((likelihood >= probability.amax(-1) - 2.0**-50).all())  # differences of float64 numbers below 1


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_every_strategy_is_the_quantizer_and_nothing_upstream_learns(family, offset, strategy):
    levels, scale = Levels(-4, 3, offset), torch.tensor(0.3)
    x = torch.cat([torch.randn(500), torch.arange(-6, 6) * scale, (torch.arange(-6, 6) + 0.5) * scale]).requires_grad_()
    out = noisy(x, levels, family, half_width=0.0, scale=scale, strategy=strategy)
    out.sum().backward()
    assert torch.equal(out, quantize(x, scale, levels) * scale)
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("offset", OFFSETS)
def test_quantize_is_the_clipped_floor(offset):
    x = torch.randn(1000) * 3
    expected = torch.floor(x.double() / 0.25 + offset).clamp(-8, 7)  # a power of two divides without rounding
    assert torch.equal(quantize(x, torch.tensor(0.25), Levels(-8, 7, offset)).double(), expected)


@pytest.mark.parametrize(("lo", "hi"), [(-1, 1), (-8, 7), (0, 3), (0, 255)])
def test_half_a_step_of_uniform_noise_is_the_clipped_straight_through_estimator(lo, hi):
    u = points(lo, hi, 1000)
    is_inside = (u > lo) & (u < hi)
    found = gradient(u, Levels(lo, hi, 0.5), Uniform(), strategy=Strategy.MODE)
    torch.testing.assert_close(found, is_inside.float(), rtol=4 * ULP, atol=0)  # the density times the width


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_straight_through_gradient_has_no_holes(offset):
    u = torch.arange(-7, 7) + (0.0 if offset == 0.5 else 0.5)  # where one threshold's noise ends and the next begins
    found = gradient(u, Levels(-8, 7, offset), Uniform(), strategy=Strategy.MODE)
    torch.testing.assert_close(found, torch.ones_like(u), rtol=4 * ULP, atol=0)


@pytest.mark.parametrize("factor", [1.0, 0.037])
@pytest.mark.parametrize(("lo", "hi"), [(-1, 1), (-8, 7), (0, 15)])
def test_scale_gradient_is_that_of_learned_step_size_quantization(lo, hi, factor):
    x, upstream = torch.randn(3, 500) * 2, torch.randn(3, 500)
    scale = torch.tensor([[0.1], [0.35], [2.0]], requires_grad=True)
    out = noisy(x, Levels(lo, hi, 0.5), Uniform(), scale=scale, strategy=Strategy.MODE, factor=factor)
    out.backward(upstream)
    u = x / scale.detach()
    lsq = torch.where(u <= lo, float(lo), torch.where(u >= hi, float(hi), torch.round(u) - u))
    expected = (upstream * lsq).double().sum(1, keepdim=True) * factor
    # 500 terms; a slope of 1 is rounded four times and multiplies at most hi − lo, the sum is rounded 500 times.
    tolerance = factor * 500 * (8 * ULP * (hi - lo + 1)) * float(upstream.abs().max())
    torch.testing.assert_close(scale.grad.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_gradient_of_the_expectation_is_its_finite_difference(family):
    levels, h = Levels(-2, 1, 0.5), 2.0**-9
    x = points(-2, 1, 200)
    scale = torch.ones_like(x, requires_grad=True)  # one for each number
    noisy(x, levels, family, scale=scale).sum().backward()
    difference = (noisy(x, levels, family, scale=1 + h) - noisy(x, levels, family, scale=1 - h)) / (2 * h)
    # As for x, but a change of scale moves x by at most |x| <= 4 as much.
    third = 4**3 * 2 * 0.75 / family.std_of(0.5) ** 3
    tolerance = h * h / 6 * third + 8 * ULP * 8 / (2 * h)
    torch.testing.assert_close(scale.grad, difference, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strategy", [Strategy.EXPECTATION, Strategy.MODE])
def test_half_precision_inputs_are_computed_in_float32(dtype, strategy):
    levels, settings = Levels(-8, 7, 0.5), {"scale": 0.5, "strategy": strategy}
    x = torch.randn(100, dtype=dtype, requires_grad=True)
    out = noisy(x, levels, Normal(), **settings)
    out.sum().backward()
    assert (out.dtype, x.grad.dtype) == (torch.float32, dtype)
    assert torch.equal(out, noisy(x.float(), levels, Normal(), **settings))
    assert torch.equal(x.grad, gradient(x.detach().float(), levels, Normal(), **settings).to(dtype))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_channel_has_its_own_scale(family):
    # Rows of 64: what is left over from a vector register, torch's sigmoid rounds in another way.
    levels, x, scales = Levels(-4, 3, 0.5), torch.randn(5, 16, 4), torch.rand(5, 1, 1) + 0.1
    together = noisy(x, levels, family, scale=scales)
    apart = [noisy(row, levels, family, scale=scale) for row, scale in zip(x, scales.flatten(), strict=True)]
    assert torch.equal(together, torch.stack(apart))
    scales.requires_grad_()
    noisy(x, levels, family, scale=scales).sum().backward()
    assert scales.grad.shape == scales.shape


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [2, 256])
def test_one_tensor_is_kept_beside_input_and_output_whatever_the_levels(family, count):
    x, scale = torch.randn(100, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    out = noisy(x, Levels(0, count - 1, 0.5), family, scale=scale)
    others = [t for t in out.grad_fn.saved_tensors if t is not None and t.data_ptr() != x.data_ptr()]
    kept = [t.numel() for t in others if t.data_ptr() != out.data_ptr()]  # what it reads and gives is there anyway
    assert sorted(kept, reverse=True)[:2] == [100, 1]
    assert sum(kept) <= 102


@pytest.mark.parametrize(("family", "num_bytes"), [(Uniform(), 100 + 4), (Normal(), 400)], ids=["uniform", "normal"])
def test_a_fixed_scale_keeps_a_byte_or_a_float_and_gets_no_gradient(family, num_bytes):
    x, scale = torch.randn(100, requires_grad=True), torch.tensor(0.1)
    out = noisy(x, Levels(0, 255, 0.5), family, scale=scale, half_width=0.5)
    assert sum(tensor.nbytes for tensor in out.grad_fn.saved_tensors if tensor is not None) == num_bytes
    out.sum().backward()
    assert scale.grad is None


@pytest.mark.parametrize("family", ["uniform", "triangular", "logistic", "normal"])
def test_infinite_numbers_leave_the_scale_the_gradient_of_large_ones(family):
    found = []
    for end in (math.inf, 1e6):
        x, scale = torch.tensor([end, -end, 0.23, -0.01]), torch.tensor(0.1, requires_grad=True)
        fake_quantize(
            x, scale, torch.tensor(0.0), torch.tensor(0.3), levels=Levels(-7, 7, 0.5), noise=NOISES[family],
            strategy=Strategy.MODE, num_neighbours=3,
        ).sum().backward()  # fmt: skip
        found.append(scale.grad)
    assert torch.equal(*found)
