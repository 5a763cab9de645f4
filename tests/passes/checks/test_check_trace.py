"""A graph that computes something else than its model is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from tests.graphs import Written


class AddsInPlaceToAView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        view = y.flatten(1)
        y += x
        return y.flatten(1) + view


def test_an_addition_in_place_to_a_view_is_refused_with_example_inputs():
    with pytest.raises(ana_fx.TraceError, match=r"AddsInPlaceToAView.*other outputs.*x = x \+ y"):
        ana_fx.prepare(AddsInPlaceToAView(), torch.rand(2, 3, 4, 4))


def test_random_numbers_in_the_forward_are_found_with_example_inputs():
    model = Written(lambda m, x: torch.dropout(m.conv(x), 0.5, train=True), conv=nn.Conv2d(3, 3, 1))
    with pytest.raises(ana_fx.TraceError, match="random numbers in eval mode"):
        ana_fx.prepare(model, torch.rand(2, 3, 4, 4))


def test_the_order_of_sums_may_differ_where_attention_is_written_out():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    assert ana_fx.prepare(model, torch.rand(2, 5, 8)).meta["is_written_out"]
