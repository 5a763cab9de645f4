"""Equalisation: the same outputs to the last bit, channels that are alike, and nothing moved where it must not be."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import ana_fx
from ana_fx.target_registry import target_called
from tests.models import Residual, Shared
from tests.random_graphs import networks

X = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def chain(*, activation=nn.ReLU, norm=nn.BatchNorm2d):
    """A convolution, a pool and a flattening before a linear layer, in channels of unlike ranges."""
    layers = (nn.Conv2d(3, 6, 3), norm(6), activation(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4))
    return skewed(nn.Sequential(*layers))


def separable():
    """A pointwise convolution, a depthwise one, and another pointwise one."""
    layers = (nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten())
    return skewed(nn.Sequential(*layers, nn.Linear(144, 4)))


@torch.no_grad()
def skewed(model):
    """The model with rows of weights that are up to 2^6 times as large as others."""
    for parameter in model.parameters():
        if len(parameter) > 4:  # not its outputs
            if not parameter.any():
                parameter.normal_()
            parameter.mul_(octaves(len(parameter), parameter.ndim))
    return model.eval()


def octaves(channels, rank):
    return 2.0 ** torch.linspace(-3, 3, channels).reshape(-1, *[1] * (rank - 1))


def changed(model, equal):
    pairs = zip(model.named_parameters(), equal.parameters(), strict=True)
    return [name for (name, ours), theirs in pairs if not torch.equal(ours, theirs)]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (chain, ["1.weight", "1.bias", "5.weight"]),
        (lambda: chain(norm=nn.Identity), ["0.weight", "0.bias", "5.weight"]),
        (separable, ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight"]),
    ],
)
def test_outputs_are_the_same_bit_for_bit(make, names):
    model = make()
    equal = ana_fx.equalize(model, X.split(8))
    assert changed(model, equal) == names
    assert torch.equal(equal(X), model(X))


@given(networks())
@settings(max_examples=12)
def test_outputs_of_random_networks_are_the_same_bit_for_bit(drawn):
    model, x = drawn
    try:
        equal = ana_fx.equalize(model, [x])
    except ana_fx.AnaFxError:
        return  # what prepare refuses
    torch.testing.assert_close(equal(x), model(x), rtol=0, atol=0, equal_nan=True)


def test_channels_before_a_depthwise_layer_become_alike():
    model = separable()
    before, after = (each[:2](X).amax((0, 2, 3)) for each in (model, ana_fx.equalize(model, [X])))
    assert before.max() / before[before > 0].min() > 8
    assert after.max() / after[after > 0].min() < 2  # each factor is off by at most half an octave


def test_a_linear_layer_and_what_it_reads_share_the_difference():
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([16.0, 1.0, 1.0, 1.0]))
    x = torch.randn(64, 4)
    equal = ana_fx.equalize(model, [x])
    assert torch.equal(equal(x), model(x))
    factor = model[0].weight / equal[0].weight
    assert factor[0] / factor[1:].mean() > 2


@torch.no_grad()
@pytest.mark.parametrize("per_channel", [True, False])
def test_few_bits_cost_less(per_channel, monkeypatch):
    target = replace(target_called("onnxruntime"), per_channel=per_channel)
    for module in ("prepare", "post_training.equalize"):
        monkeypatch.setattr(f"ana_fx.passes.{module}.target_called", lambda _: target)
    model, steps = separable(), octaves(6, 4)  # by which the channels of its first layer become unlike:
    model[0].weight.normal_().mul_(steps)
    model[0].bias.zero_()
    model[2].weight.normal_().div_(steps)
    errors = []
    for each in (model, ana_fx.equalize(model, [X])):
        qat = ana_fx.prepare(each, X, precision="int4", calibration=[X])
        errors.append(float((qat.eval()(X) - model(X)).square().sum()))
    assert errors[1] < 0.7 * errors[0]


def test_what_is_not_homogeneous_or_read_elsewhere_keeps_its_numbers():
    for model in (chain(activation=nn.ReLU6), chain(activation=nn.Hardtanh), skewed(Shared())):
        x = X if isinstance(model, nn.Sequential) else torch.rand(4, 3, 16, 16)
        assert not changed(model, ana_fx.equalize(model, [x]))
    residual = skewed(Residual())
    names = changed(residual, ana_fx.equalize(residual, [torch.rand(4, 3, 16, 16)]))
    assert names
    assert all("bn1" in name or "conv2" in name for name in names)  # sums read the others


def test_a_linear_layer_over_another_axis_is_no_reader():
    model = skewed(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Linear(8, 4)))  # of 8 columns, not of 8 channels
    assert not changed(model, ana_fx.equalize(model, [X]))


def test_numbers_of_64_bits_stay_so():
    model = chain().double()
    equal = ana_fx.equalize(model, [X])
    assert changed(model, equal)
    assert torch.equal(equal(X.double()), model(X.double()))


def test_the_model_is_not_touched_and_a_dead_channel_stays_dead():
    model = chain(norm=nn.Identity)
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    equal = ana_fx.equalize(model, [X])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not equal[0].weight[1].any()


def test_a_model_that_was_prepared_is_refused():
    qat = ana_fx.prepare(chain(), X)
    with pytest.raises(ValueError, match="needs a float model"):
        ana_fx.equalize(qat, [X])


def test_no_batch_is_refused():
    with pytest.raises(ana_fx.CalibrationError, match="holds no batch"):
        ana_fx.equalize(chain(), [])
