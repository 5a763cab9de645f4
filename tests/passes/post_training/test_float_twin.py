"""The twin computes what the float network does, and leaves the prepared model alone."""

import pytest
import torch

import ana_fx
from ana_fx.passes.post_training.float_twin import float_twin
from tests.models import Depthwise, OneDimensional, Residual, Shared

NETWORKS = [(Residual, (3, 16, 16)), (Depthwise, (3, 16, 16)), (OneDimensional, (4, 40)), (Shared, (3, 16, 16))]


@pytest.mark.parametrize(("make", "shape"), NETWORKS, ids=lambda each: getattr(each, "__name__", ""))
@torch.no_grad()
def test_the_twin_is_the_float_network(make, shape):
    model, x = make().eval(), torch.randn(4, *shape)
    qat = ana_fx.prepare(model, x, precision="int4", calibration=[x])
    before = qat(x)
    torch.testing.assert_close(float_twin(qat)(x), model(x))  # the same sums, in another order
    assert torch.equal(qat(x), before)


@torch.no_grad()
def test_pixels_go_in_unrounded():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    x = torch.rand(2, 3, 6, 6) * 4 - 2
    image = ana_fx.ImageInput((0.5, 0.4, 0.45), (0.25, 0.25, 0.25))
    qat = ana_fx.prepare(model, x, precision=ana_fx.Precision("int8", input=image), calibration=[x])
    torch.testing.assert_close(float_twin(qat)(x), model(x), atol=1e-5, rtol=1e-4)  # pixels up to 255 in float32
