"""Two runs of the trained model tell where the batch lies; what they cannot tell is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ana_fx
from tests.graphs import Written
from tests.models import Chain, example
from tests.programs import calibrated

IMAGES = torch.linspace(0, 1, 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)


def test_a_shape_that_no_batch_has_told_is_refused():
    qat = ana_fx.prepare(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))
    qat.get_submodule("input_1_quantizer").set_scale(torch.tensor(0.1))
    with pytest.raises(ana_fx.ConvertError, match=r"shape of input 'input_1' is not known.*example_inputs, or train"):
        ana_fx.convert(qat)


def test_calibration_tells_the_shape_too():
    x = example(Chain)
    qat = ana_fx.prepare(Chain(), calibration=[x]).eval()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.conv(x).view(4, -1),  # the batch written down
        lambda m, x: m.head(m.conv(x).view(4, -1)),
        lambda m, x: m.conv(x).view(1, -1),  # the batch swallowed
    ],
)
def test_a_batch_axis_that_is_written_down_is_refused(forward):
    model = Written(forward, conv=nn.Conv2d(3, 2, 1), head=nn.Linear(72, 2))
    with pytest.raises(ana_fx.ConvertError, match="needed a leading batch axis"):
        ana_fx.convert(calibrated(model, IMAGES))
