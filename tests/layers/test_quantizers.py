"""The first batch: what it must be to set scales, and that scale groups learn from it on.

This covers `passes/quantization/sample_scales.py`, `layers/input_quantizers.py` and `numerics/first_scale.py` too.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps, quantizers
from ana_fx.layers.quantizers import ClipRange, Quantizer
from ana_fx.schedule.schedule import Schedule
from tests.graphs import Written

X = torch.rand(8, 3, 6, 6)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def quantizer(name: str = "uint4", clip_range: ClipRange = ClipRange()) -> Quantizer:
    return Quantizer(ana_fx.IntegerType.parse(name), Schedule(), clip_range=clip_range)


# What is not finite


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_first_batch_that_is_not_finite_is_refused_and_sets_nothing(number):
    qat = ana_fx.prepare(network(), X).train()
    before = copy.deepcopy(qat.state_dict())
    bad = X.clone()
    bad[3, 1, 2, 2] = number
    with pytest.raises(ana_fx.CalibrationError, match=r"sets the scale of input_1_quantizer, .* NaN or infinite"):
        qat(bad)
    assert all(torch.equal(tensor, before[name]) for name, tensor in qat.state_dict().items())
    qat(X)
    assert all(each.is_calibrated for _, each in quantizers(qat))


def test_the_layer_that_such_numbers_reach_is_named():
    qat = ana_fx.prepare(network(), X).train()
    qat.get_submodule("2").bias.data[1] = torch.nan
    with pytest.raises(ana_fx.CalibrationError, match=r"sets the scale of 2\.output_quantizer, .*layers before"):
        qat(X)


def test_nothing_is_looked_at_once_the_scales_are_known(monkeypatch):
    qat = ana_fx.prepare(network(), X, calibration=[X]).train()
    monkeypatch.setattr(Quantizer, "_calibrate_on_first_batch", lambda *_: pytest.fail("it waited for the device"))
    qat(X)


def test_an_infinite_scale_of_the_input_is_no_bug_of_ours():
    qat = ana_fx.prepare(network(), X, calibration=[X])
    qat.get_submodule("input_1_quantizer").scale.data.fill_(torch.inf)
    with pytest.raises(ana_fx.UnsupportedError, match="scale holds 1 NaN or infinite of 1 numbers"):
        ana_fx.convert(qat)


# Zeros


def test_a_dummy_batch_of_zeros_sets_no_scale():
    qat, wanted = ana_fx.prepare(network(), X).train(), ana_fx.prepare(network(), X).train()
    wanted.load_state_dict(qat.state_dict())
    for layer in (0, 2):
        for model in (qat, wanted):
            nn.init.zeros_(model.get_submodule(str(layer)).bias)
    qat(torch.zeros_like(X))
    assert not qat.get_submodule("input_1_quantizer").is_calibrated
    qat(X)
    wanted(X)
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in qat.state_dict().items())


@pytest.mark.parametrize("x", [torch.zeros(5), -torch.rand(5)], ids=["zeros", "clipped"])
def test_numbers_that_are_all_zero_tell_no_scale(x):
    made = quantizer(clip_range=ClipRange(0.0)).train()
    assert torch.equal(made(x), torch.zeros_like(x))
    assert not made.is_calibrated
    made(torch.rand(5))
    assert made.is_calibrated


def test_a_layer_that_is_dead_in_calibration_is_told_by_the_first_batch_that_wakes_it():
    model = network()
    nn.init.constant_(model[2].bias, -100.0)
    qat = ana_fx.prepare(model, X, calibration=[X])
    assert not layer_maps(qat)["2"].output_quantizer.is_calibrated
    with pytest.raises(ana_fx.CalibrationError, match=r"2\.output_quantizer"):
        ana_fx.convert(qat)
    nn.init.zeros_(qat.get_submodule("2").bias)
    qat.train()(X)
    assert layer_maps(qat)["2"].output_quantizer.scale.item() < 0.1


def test_a_layer_that_stays_dead_is_converted_once_its_scale_is_said():
    model = network()
    nn.init.constant_(model[2].bias, -100.0)
    qat = ana_fx.prepare(model, X, calibration=[X]).eval()
    layer_maps(qat)["2"].output_quantizer.set_scale(torch.tensor(1.0))
    assert torch.equal(ana_fx.convert(qat)(X), qat(X))


def test_a_weight_that_starts_at_zero_gets_a_scale_it_can_grow_into():
    model = network()
    nn.init.zeros_(model[5].weight)
    scale = layer_maps(ana_fx.prepare(model, X, precision="int4"))["5"].weight_quantizer.scale
    torch.testing.assert_close(scale.detach(), torch.tensor(0.25 / 7))  # torch starts in ±1 / √16


def test_samples_go_before_what_a_norm_tells():
    """A norm that saw other data, and one whose numbers have longer tails than normal ones."""
    model, x = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(64, 4)
    model[1].num_batches_tracked.fill_(100)
    model[1].running_var.fill_(1e12)
    first = layer_maps(ana_fx.prepare(model, x, calibration=[x]))["0"]
    assert not first.output_quantizer.loses(first.real((x,)))
    model[1].running_var.fill_(1.0)
    x[0] = 100.0
    first = layer_maps(ana_fx.prepare(model.eval(), x, calibration=[x]))["0"]
    largest = float(model[:2](x).detach().max())
    assert largest / 255 < first.output_quantizer.scale.item() * 1.01


# Scale groups


def joined(magnitudes: list[float], *, nested: bool) -> nn.Module:
    def forward(m, x):
        parts = [m.get_submodule(f"part{index}")(x) for index in range(len(magnitudes))]
        if nested:
            parts = [torch.cat(parts[:2], 1), *parts[2:]]
        return m.head(F.adaptive_avg_pool2d(torch.cat(parts, 1), 1).flatten(1))

    convolutions = {f"part{index}": nn.Conv2d(3, 2, 1) for index in range(len(magnitudes))}
    for magnitude, convolution in zip(magnitudes, convolutions.values(), strict=True):
        with torch.no_grad():
            convolution.weight *= magnitude
            convolution.bias *= magnitude
    return Written(forward, **convolutions, head=nn.Linear(2 * len(magnitudes), 2))


@given(
    magnitudes=st.lists(st.sampled_from([0.0, 1e-3, 1.0, 30.0]), min_size=2, max_size=4),
    nested=st.booleans(),
    precision=st.sampled_from(["ternary", "int4", "int8"]),
)
def test_scale_groups_learn_from_the_first_batch_on(magnitudes, nested, precision):
    """The gradients of the weights are those of steps that do not learn, which nothing writes over."""
    torch.manual_seed(0)
    model = joined(magnitudes, nested=nested)
    learning, fixed = (
        ana_fx.prepare(model, X, precision=precision, schedule=schedule).train() for schedule in ("lsq", "ste")
    )
    for qat in (learning, fixed):
        ana_fx.Annealer(qat, 10)
        for _ in range(2):
            qat(X).square().sum().backward()
    gradients = {name: p.grad for name, p in fixed.named_parameters() if p.grad is not None}
    for name, p in learning.named_parameters():
        if name in gradients:
            assert torch.equal(p.grad, gradients[name]), name
        elif name.endswith("scale") and p.grad is not None:
            assert bool(torch.isfinite(p.grad).all())


def test_the_gradient_of_a_shared_scale_is_the_sum_over_those_that_share_it():
    first, second = (Quantizer(ana_fx.IntegerType.parse("int4"), Schedule(), learn_scale=True) for _ in range(2))
    alone = copy.deepcopy(first)
    second.share_scale(first)
    small, large = torch.rand(50), torch.rand(50) * 9
    (first(small) - second(large)).square().sum().backward()
    alone.calibrate(small)
    small_levels = alone(small)
    alone_large = copy.deepcopy(second)
    alone_large.scale.grad = None
    (small_levels - alone_large(large)).square().sum().backward()
    torch.testing.assert_close(first.scale.grad, alone.scale.grad + alone_large.scale.grad)
    assert first.scale is second.scale
    assert bool(first.scale.detach() >= alone_large.scale.detach())


def test_those_of_a_group_that_see_only_zeros_take_the_scale_of_the_others():
    qat = ana_fx.prepare(joined([0.0, 1.0], nested=False), X, precision="int4", calibration=[X])
    first, second = (layer_maps(qat)[f"part{index}"].output_quantizer for index in range(2))
    assert first.is_calibrated
    assert second.is_calibrated
    assert first.scale is second.scale
    assert 0 < float(first.scale.detach()) < 1
    assert torch.equal(ana_fx.convert(qat)(X), qat.eval()(X))
