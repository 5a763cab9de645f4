"""Samples from all rows and columns, whatever the sizes, and of the whole tail."""

import pytest
import torch

from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import least_squares_scale
from ana_fx.numerics.spread_samples import spread_samples, tail_samples


@pytest.mark.parametrize("size", [8, 12, 32, 49])
def test_every_column_and_channel_is_seen(size):
    column = torch.arange(size).expand(16, 10, size, size)
    channel = torch.arange(10)[:, None, None].expand(16, 10, size, size)
    for x, number in ((column, size), (channel, 10)):
        assert len(spread_samples(x, 400).unique()) == number


def test_a_small_tensor_is_taken_whole():
    x = torch.rand(2, 3)
    assert torch.equal(spread_samples(x, 100), x.flatten())


def test_the_tail_is_taken_whole_and_weights_count_every_number():
    x = torch.randn(50, 40, 10, generator=torch.Generator().manual_seed(0))
    numbers, weights = tail_samples(x, 400)
    largest = x.abs().flatten().topk(100).values
    assert torch.equal(numbers[:100].abs(), largest)
    assert (weights[:100] == 1).all()
    assert (numbers[100:].abs() < largest[-1]).all()
    torch.testing.assert_close(weights.double().sum(), torch.tensor(float(x.numel())).double())  # weights are float32
    assert len(numbers) < 600


def test_of_few_numbers_the_tail_is_all():
    numbers, weights = tail_samples(torch.arange(6.0).reshape(2, 3), 6)
    assert (numbers.tolist(), weights.tolist()) == ([0, 1, 2, 3, 4, 5], [1.0] * 6)


def test_equal_numbers_have_no_tail():
    numbers, weights = tail_samples(torch.ones(1000), 100)
    assert (numbers == 1).all()
    assert len(numbers) == len(weights) > 0


def test_a_step_from_the_tail_costs_hardly_more_than_one_from_all_numbers():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2**20, generator=generator).abs() * torch.randn(2**20, generator=generator).exp()  # a long tail
    levels = Levels(0, 255, 0.5)

    def error(numbers, weights=None):
        step = least_squares_scale(numbers[None], levels, None if weights is None else weights[None])
        return float((torch.round(x / step).clamp(0, 255) * step - x).square().sum())

    steps = torch.linspace(0.05, 0.5, 46)  # on a plain grid: the least error there is
    least = min(float((torch.round(x / step).clamp(0, 255) * step - x).square().sum()) for step in steps)
    assert error(*tail_samples(x, 2**12)) < 1.1 * least
    assert error(spread_samples(x, 2**12)) > 1.5 * least
