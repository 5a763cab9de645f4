"""A batch norm and its quantizer as one: where they are, and that a model trains as with plain code.

This covers `layers/hooks.py` too.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.layers.codebook_quantizer import CodebookQuantizer
from ana_fx.layers.norm_and_quantizer import are_one, normalized_and_quantized
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.integer_type import IntegerType
from tests.kernels.test_blocked_norm import plain
from tests.models import Residual, example

X = (8, 6, 5, 5)


def quantizer_of(kind="uint4", schedule="lsq", *, learns=True, scale=0.2, **settings):
    made = Quantizer(IntegerType.parse(kind), ana_fx.preset(schedule), learn_scale=learns, **settings).train()
    made.set_scale(torch.full(settings.get("scale_shape", ()), scale))
    made.std.fill_(0.5 / 3**0.5)
    return made


@pytest.mark.parametrize("settings", [{}, {"momentum": None}, {"momentum": 0.3, "eps": 0.1}], ids=str)
@pytest.mark.parametrize("is_training", [True, False])
def test_the_statistics_are_those_of_the_norm(settings, is_training):
    norm, quantizer = nn.BatchNorm2d(6, **settings).train(is_training), quantizer_of()
    alone = copy.deepcopy(norm)
    for _ in range(3):
        x = torch.randn(X)
        assert are_one(norm, quantizer, x)
        found = normalized_and_quantized(norm, x, quantizer)
        difference = (found - quantizer(alone(x))).abs()
        assert float((difference > 1e-6).float().mean()) <= 2.0**-10  # one next to a threshold may have another level
    for name, expected in alone.state_dict().items():
        assert torch.equal(norm.state_dict()[name], expected), name
    assert int(norm.num_batches_tracked) == 3 * is_training


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_numbers_and_statistics_are_the_same_without_gradients(mode):
    norm, quantizer, x = nn.BatchNorm2d(6), quantizer_of(), torch.randn(X)
    other = copy.deepcopy(norm)
    expected = normalized_and_quantized(norm, x, quantizer)
    with mode():
        found = normalized_and_quantized(other, x, quantizer)
    assert expected.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, expected)
    assert all(map(torch.equal, norm.buffers(), other.buffers()))


def test_a_batch_that_a_norm_refuses_is_refused_in_its_words():
    norm, quantizer = nn.BatchNorm2d(6), quantizer_of()
    with pytest.raises(ValueError, match=r"expected 4D input \(got 2D input\)"):
        normalized_and_quantized(norm, torch.randn(8, 6), quantizer)
    assert not are_one(norm, quantizer, torch.randn(1, 6, 1, 1))  # the norm itself then says what is wrong


def test_only_what_gives_the_same_numbers_is_one():
    x, norm, usual = torch.randn(X), nn.BatchNorm2d(6), quantizer_of()
    lsq = ana_fx.preset("lsq")
    per_channel = quantizer_of("int4", scale_shape=(6, 1, 1, 1))
    codebook = CodebookQuantizer(IntegerType.parse("bipolar"), lsq, learn_scale=True)
    unknown = Quantizer(IntegerType.parse("int4"), lsq)
    assert are_one(norm, usual, x)
    assert are_one(norm, quantizer_of(learns=False), x)
    for quantizer in (per_channel, codebook, unknown, quantizer_of(schedule="clipped-relu")):
        assert not are_one(norm, quantizer, x)
    without_line, without_statistics = nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, track_running_stats=False)
    untracked = nn.BatchNorm2d(6)
    untracked.track_running_stats = False  # said later, when the buffers are there
    for other in (without_line, without_statistics, untracked, nn.GroupNorm(2, 6), nn.SyncBatchNorm(6)):
        assert not are_one(other, usual, x)
    assert not are_one(norm, usual, x.bfloat16())
    computed = nn.BatchNorm2d(6)
    torch.nn.utils.parametrize.register_parametrization(computed, "weight", nn.Softplus())
    assert not are_one(computed, usual, x)


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook"],
)  # fmt: skip
def test_hooks_of_either_are_called(register):
    for is_norm in (True, False):
        seen, x = [], torch.randn(X)
        model = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3))
        qat = ana_fx.prepare(model, x).train()
        layer_map = qat.get_submodule("0")
        module = layer_map.norm if is_norm else layer_map.output_quantizer
        getattr(module, register)(lambda *_, seen=seen: seen.append("called"))
        qat(x).sum().backward()
        assert seen == ["called"]


@pytest.mark.parametrize("schedule", ["lsq", "best-static", "best-dynamic"])
def test_a_prepared_model_learns_as_from_plain_code(schedule, monkeypatch):
    x, found = example(Residual), []
    for is_plain in (False, True):
        if is_plain:
            monkeypatch.setattr("ana_fx.layers.quantizers.normalize_and_quantize", plain)
        torch.manual_seed(3)
        qat = ana_fx.prepare(Residual(), x, precision="int4", schedule=schedule).train()
        qat(x).square().sum().backward()
        found.append({name: each.grad for name, each in qat.named_parameters() if each.grad is not None})
    together, expected = found
    assert together.keys() == expected.keys()
    for name, grad in expected.items():
        if name.endswith("scale"):  # of numbers that sums read, the place in a bin is known to 1 / 250
            torch.testing.assert_close(together[name], grad, rtol=1e-2, atol=1e-4)
        else:
            assert torch.equal(together[name], grad)
