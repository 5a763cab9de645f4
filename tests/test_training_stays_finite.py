"""No width and no schedule gives NaN, with steps that learn fast, dead channels and constant images among the data."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.schedule.schedule import Schedule
from tests.models import Chain, example

STEPS = 12
WIDTHS = ("ternary", "all-ternary", *(f"int{bits}" for bits in range(2, 9)))
SCHEDULES = {
    "static": "lsq",
    "annealed": Schedule(learn_scales=True),
    "expectation": Schedule("normal", "expectation", "same_start", learn_scales=True),
    "random": Schedule("logistic", "random", "overlapped", "progressive", "dynamic", learn_scales=True),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("width", WIDTHS)
def test_all_numbers_stay_finite(width, schedule):
    net = Chain().train()
    with torch.no_grad():
        net.features[0].weight[0] = 0.0  # a dead channel
    images, labels = example(Chain), torch.arange(8) % 10
    images[0] = 0.0
    qat = ana_fx.prepare(net, images, precision=width, schedule=SCHEDULES[schedule])
    annealer = ana_fx.Annealer(qat, STEPS)
    optimizer = torch.optim.Adam(qat.parameters(), lr=0.1)  # steps cross zero
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(qat(images), labels)
        loss.backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in qat.parameters())
        optimizer.step()
        optimizer.zero_grad()
        annealer.step()
    assert bool(loss.isfinite())
    ana_fx.reestimate_batch_norms(qat, [images])
    assert torch.equal(ana_fx.convert(qat)(images), qat.eval()(images))
