"""The noisy K-quantizer: its expectation and gradient are those of equation 3 and Proposition 1, for any levels."""

import math

import pytest
import torch

from ana_fx.errors import PrecisionError
from ana_fx.layers.codebook_quantizer import CodebookQuantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.schedule.noise import NOISES
from ana_fx.schedule.schedule import Schedule

TYPES = [IntegerType.parse("bipolar"), IntegerType.parse("uint1"), IntegerType.of_levels([-4, -1, 0, 1, 4])]


def quantizer(integer_type, noise="uniform", strategy="expectation", scale=0.5, std=0.3):
    made = CodebookQuantizer(integer_type, Schedule(noise, strategy)).train()
    made.set_scale(torch.tensor(scale))
    made.std.fill_(std)
    return made


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("integer_type", TYPES, ids=str)
def test_the_expectation_is_the_mean_of_many_draws(integer_type, noise):
    x = torch.linspace(-2, 2, 9)
    wanted = quantizer(integer_type, noise)(x)
    draws = quantizer(integer_type, noise, "random")(x.expand(20_000, -1)).mean(0)
    spread = 0.5 * (integer_type.qmax - integer_type.qmin) / 20_000**0.5  # of a mean of so many draws, at most
    assert (draws - wanted).abs().max() < 5 * spread


@pytest.mark.parametrize("noise", ["triangular", "normal", "logistic"])
@pytest.mark.parametrize("integer_type", TYPES, ids=str)
def test_the_gradient_is_that_of_the_expectation(integer_type, noise):
    made = quantizer(integer_type, noise)
    x = torch.linspace(-1.9, 2.1, 11, requires_grad=True)
    (found,) = torch.autograd.grad(made(x).sum(), x)
    h = 2.0**-7
    with torch.no_grad():
        wanted = (made(x + h) - made(x - h)) / (2 * h)
    # Central differences err by h²/6 of the third derivative, below 4000 for these widths, and by rounding over h.
    assert torch.allclose(found, wanted, atol=4000 * h * h / 6)


@pytest.mark.parametrize("integer_type", TYPES, ids=str)
def test_without_noise_every_strategy_gives_the_levels(integer_type):
    x = torch.randn(100)
    for strategy in ("expectation", "mode", "random"):
        made = quantizer(integer_type, strategy=strategy, std=0.0)
        assert torch.equal(made(x), made.quantize(x) * 0.5)


def test_noise_is_measured_in_the_smallest_distance_of_two_levels():
    made = quantizer(TYPES[0], std=Schedule().noise.std_of(0.5))
    x = torch.tensor([-0.6, -0.4, 0.4, 0.6], requires_grad=True)  # half a distance is one step, 0.5
    (gradient,) = torch.autograd.grad(made(x).sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_first_batch_sets_the_scale():
    made = CodebookQuantizer(TYPES[0], Schedule()).train()
    x = torch.randn(1000)
    made(x)
    assert torch.isclose(made.scale, x.abs().mean(), rtol=1e-5)


def test_an_infinite_number_leaves_a_learned_scale_its_gradient():
    made = CodebookQuantizer(TYPES[2], Schedule(), learn_scale=True).train()
    made.std.fill_(0.2)
    made.set_scale(torch.tensor(0.1))
    made(torch.tensor([math.inf, -math.inf, 0.07])).sum().backward()
    assert bool(made.scale.grad.isfinite())


def test_a_learned_scale_has_a_gradient():
    made = CodebookQuantizer(TYPES[2], Schedule(), learn_scale=True).train()
    made.set_scale(torch.tensor(0.5))
    made(torch.randn(50)).square().sum().backward()
    assert float(made.scale.grad.abs()) > 0


LEVELS, ROWS = [[-4, 0, 1], [-1, 0, 4], [0, 1]], [[-1.5, 0.75], [-0.25, 2.0], [0.5]]


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("strategy", ["expectation", "mode"])
def test_each_channel_is_quantised_as_if_it_were_alone(noise, strategy, axis):
    together = quantizer(IntegerType.of_levels(LEVELS, ROWS), noise, strategy)
    together.channel_axis = axis
    x = torch.randn(40, 3, requires_grad=True)
    y = together(x.unsqueeze(-1) if axis == 1 else x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    for channel, (levels, row) in enumerate(zip(LEVELS, ROWS, strict=True)):
        alone = quantizer(IntegerType.of_levels(levels, row), noise, strategy)
        alone.std.mul_(together.unit / alone.unit)  # noise is measured in the smallest distance of any two levels
        column = x[:, channel].detach().requires_grad_()
        (wanted,) = torch.autograd.grad(alone(column).sum(), column)
        # A jump over several levels is added in parts, and levels are at most 4: three additions of 2⁻²⁴ · 4 each.
        assert torch.allclose(y.reshape(40, 3)[:, channel], alone(column), rtol=0, atol=3 * 2.0**-22)
        assert torch.allclose(gradient[:, channel], wanted, rtol=2.0**-20, atol=2.0**-20)
        assert torch.equal(together.level_of(x.double().detach())[:, channel], alone.level_of(column.double().detach()))


def test_random_levels_of_a_channel_are_its_own():
    together = quantizer(IntegerType.of_levels(LEVELS, ROWS), "normal", "random", scale=1.0, std=3.0)
    drawn = together(torch.randn(1000, 3))
    assert [set(column.unique().tolist()) for column in drawn.unbind(1)] == [set(map(float, row)) for row in LEVELS]


def test_other_channels_than_there_are_thresholds_for_are_refused():
    together = quantizer(IntegerType.of_levels(LEVELS, ROWS))
    with pytest.raises(PrecisionError, match="found 4 channels and thresholds for each of 3"):
        together(torch.randn(5, 4))
