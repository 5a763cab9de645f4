"""The gradients of a quantizer behind a batch norm: what the norm tells is what the quantizer would have computed."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import quantizers
from ana_fx.layers.codebook_quantizer import CodebookQuantizer
from ana_fx.layers.quantizers import ClipRange, Quantizer
from ana_fx.layers.scale_by_norm import normalized_and_quantized, norms_parameters, takes_part, tells_scale
from ana_fx.numerics.integer_type import IntegerType
from tests.models import Residual, example

X = (8, 6, 5, 5)


def norm_of(**settings):
    norm = nn.BatchNorm2d(6, **settings)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(6) * 4 - 1)
        norm.bias.copy_(torch.randn(6))
    return norm


def quantizer_of(kind="uint4", schedule="lsq", *, learns=True, scale=0.2, **settings):
    made = Quantizer(IntegerType.parse(kind), ana_fx.preset(schedule), learn_scale=learns, **settings).train()
    made.set_scale(torch.tensor(scale))
    made.std.fill_(0.5 / 3**0.5)
    return made


def gradients(forward, norm, quantizer, x, upstream):
    """What `forward` gives, the gradients of input, gain, offset and scale, and the norm's statistics."""
    norm, quantizer, x = copy.deepcopy(norm), copy.deepcopy(quantizer), x.clone().requires_grad_()
    torch.manual_seed(5)  # of random levels
    y = forward(norm, x, quantizer)
    y.backward(upstream)
    statistics = [norm.running_mean, norm.running_var, norm.num_batches_tracked]
    return y, x.grad, norm.weight.grad, norm.bias.grad, quantizer.scale.grad, *statistics


def plain(norm, x, quantizer):
    """As the plain code computes it, from what it keeps of the norm's output."""
    with mock.patch.object(quantizer, "_is_usual", False):
        return quantizer(norm(x))


def told(norm, x, quantizer):
    (parameters,) = norms_parameters([norm], [quantizer])
    return normalized_and_quantized(norm, x, quantizer, parameters)


def check(norm, quantizer):
    x, upstream = torch.randn(X), torch.randn(X)
    assert tells_scale(norm, quantizer)
    assert takes_part(quantizer, x)
    expected = gradients(plain, norm, quantizer, x, upstream)
    found = gradients(told, norm, quantizer, x, upstream)
    for index in (0, 1, 2, 3, 5, 6, 7):
        assert torch.equal(found[index], expected[index])
    # Sums of 1,200 products in blocks, at most 2**4 roundings of the sum of their sizes; slopes are at most 3.
    read = copy.deepcopy(norm)(x).detach()
    sizes = upstream.abs() * (expected[0].detach().abs() + 3 * read.abs())
    size = sizes.sum().item() / quantizer.scale.abs().item()
    assert found[4].shape == expected[4].shape
    assert abs(float(found[4] - expected[4])) <= 2.0**-20 * size * quantizer.scale_gradient(x)
    assert float(found[4]) != 0


@pytest.mark.parametrize("kind", ["ternary", "uint4", "uint8"])
@pytest.mark.parametrize("clip", [ClipRange(), ClipRange(0.0), ClipRange(0.0, 6.0)], ids=str)
def test_the_norm_tells_what_the_quantizer_would_have_kept_its_input_for(kind, clip):
    check(norm_of(), quantizer_of(kind, clip_range=clip))


@pytest.mark.parametrize("settings", [{"momentum": None}, {"track_running_stats": True, "eps": 0.1}])
def test_whatever_the_settings_of_the_norm(settings):
    check(norm_of(**settings), quantizer_of())


def test_a_norm_in_eval_mode_and_one_that_is_frozen_tell_it_too():
    check(norm_of().eval(), quantizer_of())
    x, upstream, norm, quantizer = torch.randn(X), torch.randn(X), norm_of(), quantizer_of()
    expected = gradients(plain, norm, quantizer, x, upstream)
    frozen = copy.deepcopy(norm).requires_grad_(False)
    found = gradients(told, frozen, quantizer, x, upstream)
    assert found[2] is None
    assert float(found[4]) == pytest.approx(float(expected[4]), rel=1e-3)


def test_a_scale_that_is_negative_or_that_the_batch_sets_has_its_gradient():
    negative = quantizer_of()
    with torch.no_grad():
        negative.scale.mul_(-1)
    check(norm_of(), negative)
    unknown = Quantizer(IntegerType.parse("uint4"), ana_fx.preset("lsq"), learn_scale=True).train()
    unknown.std.fill_(0.5 / 3**0.5)
    check(norm_of(), unknown)


def test_nothing_of_the_norms_output_is_kept():
    norm, quantizer, x = norm_of(), quantizer_of(), torch.randn(X)
    sizes = {}
    for name, forward in (("plain", plain), ("told", told)):
        kept = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = forward(norm, x, quantizer)
        sizes[name] = sum(kept.values())
        assert y.requires_grad
    assert sizes["plain"] - sizes["told"] >= 4 * x.numel() - 4 * 6 * 4


def test_what_it_cannot_tell_is_left_to_the_quantizer():
    x, usual = torch.randn(X), quantizer_of()
    kind, lsq = IntegerType.parse("int4"), ana_fx.preset("lsq")
    per_channel = Quantizer(kind, lsq, scale_shape=(6, 1, 1, 1), learn_scale=True)
    codebook = CodebookQuantizer(IntegerType.parse("bipolar"), lsq, learn_scale=True)
    read_by_sums, other_noise = quantizer_of(), quantizer_of(schedule="clipped-relu")
    read_by_sums.output_is_kept = False
    assert tells_scale(norm_of(), usual)
    assert not tells_scale(nn.BatchNorm2d(6, affine=False), usual)
    assert not tells_scale(nn.GroupNorm(2, 6), usual)
    for quantizer in (quantizer_of(learns=False), per_channel, codebook, read_by_sums):
        assert not tells_scale(norm_of(), quantizer)
    assert takes_part(usual, x)
    assert not takes_part(usual, x.bfloat16())
    assert not takes_part(other_noise, x)


def test_a_norm_that_does_not_give_its_own_line_is_left_to_the_quantizer():
    hooked, computed = norm_of(), norm_of()
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    torch.nn.utils.parametrize.register_parametrization(computed, "weight", nn.Softplus())
    assert not tells_scale(hooked, quantizer_of())
    assert not tells_scale(computed, quantizer_of())


def test_without_gradients_and_with_hooks_of_the_user_it_is_left_to_the_quantizer():
    norm, quantizer, x = norm_of(), quantizer_of(), torch.randn(X)
    with torch.no_grad():
        assert not takes_part(quantizer, x)
    quantizer.register_forward_hook(lambda module, inputs, output: output)
    assert not tells_scale(norm, quantizer)


def test_a_prepared_model_learns_as_it_would_from_plain_code():
    x = example(Residual)
    found = []
    for is_plain in (False, True):
        torch.manual_seed(3)
        qat = ana_fx.prepare(Residual(), x, precision="int4").train()
        for _, quantizer in quantizers(qat):
            quantizer._is_usual = quantizer._is_usual and not is_plain
        qat(x).square().sum().backward()
        found.append({name: each.grad for name, each in qat.named_parameters() if each.grad is not None})
    told, plain = found
    assert told.keys() == plain.keys()
    for name, expected in plain.items():
        if name.endswith("scale"):  # of numbers that sums read, the place in a bin is known to 1 / 250
            torch.testing.assert_close(told[name], expected, rtol=1e-2, atol=1e-4)
        else:
            assert torch.equal(told[name], expected)
