"""Max pools in programs."""

from __future__ import annotations

import torch
from torch import nn

import ana_fx
from ana_fx.graph import calls_to
from ana_fx.program.integer_modules import IntegerMaxPool
from tests.graphs import Written


@torch.no_grad()
def test_a_max_pool_that_is_called_twice_is_lowered_for_both_sizes():
    """It was lowered once, and the second call, with other sizes and pads, was left without levels."""
    model = Written(lambda m, x: m.b(m.pool(m.a(m.pool(x)).relu())), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1))
    model.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
    x = torch.rand(4, 3, 11, 8)
    qat = ana_fx.prepare(model, x, calibration=[x]).eval()
    program = ana_fx.convert(qat)
    assert len({node.target for node in calls_to(program, IntegerMaxPool)}) == 2
    assert torch.equal(program(x), qat(x))
