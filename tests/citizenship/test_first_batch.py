"""The batch that sets scales, under torch.compile: as in eager mode where it tells them."""

import copy

import pytest
import torch

import ana_fx
from ana_fx.graph import quantizers
from tests.citizenship.training import WithoutNorm, batch_of, prepared
from tests.layers.test_quantizers import joined

# About torch's own compiler: how it calls itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

X, _ = batch_of(0)
IMAGES = torch.rand(8, 3, 6, 6)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_scale_group_learns_from_the_first_batch_on(backend):
    qat = ana_fx.prepare(joined([1.0, 30.0, 0.1], nested=True), IMAGES, precision="int4", schedule="lsq").train()
    other = copy.deepcopy(qat)
    for model, net in ((qat, qat), (other, torch.compile(other, backend=backend, fullgraph=True))):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            net(IMAGES).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    expected = dict(qat.named_parameters())
    for (
        name,
        each,
    ) in other.named_parameters():  # the gradients of scales are other sums: of places in bins, of products
        torch.testing.assert_close(each, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_are_refused(number):
    qat = prepared(WithoutNorm, is_calibrated=False)
    net = torch.compile(qat, backend="eager")  # with `fullgraph` it would compile the code that handles the error
    with pytest.raises(ana_fx.CalibrationError, match="sets the scale of input_1_quantizer"):
        net(X * number)
    assert torch.is_grad_enabled()
    net(X)
    assert all(quantizer.is_calibrated for _, quantizer in quantizers(qat))


def test_zeros_set_no_scale_and_the_next_batch_does_once_someone_asks():
    qat = prepared(WithoutNorm, is_calibrated=False)
    net = torch.compile(qat, backend="eager", fullgraph=True)
    net(torch.zeros_like(X))
    assert not qat.get_submodule("input_1_quantizer").is_calibrated  # asking, as an evaluation does
    net(X)
    assert qat.get_submodule("input_1_quantizer").is_calibrated
