"""Samples from all rows and columns, whatever the sizes."""

import pytest
import torch

from ana_fx.numerics.spread_samples import spread_samples


@pytest.mark.parametrize("size", [8, 12, 32, 49])
def test_every_column_and_channel_is_seen(size):
    column = torch.arange(size).expand(16, 10, size, size)
    channel = torch.arange(10)[:, None, None].expand(16, 10, size, size)
    for x, number in ((column, size), (channel, 10)):
        assert len(spread_samples(x, 400).unique()) == number


def test_a_small_tensor_is_taken_whole():
    x = torch.rand(2, 3)
    assert torch.equal(spread_samples(x, 100), x.flatten())
