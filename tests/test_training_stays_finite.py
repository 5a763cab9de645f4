"""No width and no schedule gives NaN, with steps that learn fast, dead channels and constant images among the data.

Where the user's own loss gave NaN, the network goes on to say so.
"""

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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scales_that_a_loss_made_nan_make_everything_nan_and_are_refused(schedule):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten(), nn.Linear(144, 10))
    images = torch.rand(4, 3, 8, 8)
    qat = ana_fx.prepare(net, images, schedule=SCHEDULES[schedule]).train()
    annealer = ana_fx.Annealer(qat, 1)
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.1)
    (qat(images).sum() * torch.nan).backward()
    optimizer.step()
    assert qat(images).isnan().all()  # found once: a search for the end of a bin that never ended
    annealer.step()
    with pytest.raises(ana_fx.UnsupportedError, match="scale holds 1 NaN or infinite of 1 numbers"):
        ana_fx.convert(qat)
