from __future__ import annotations

import copy
import weakref
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers import fake_quantize
from ana_fx.layers.codebook_quantizer import quantizer_of
from ana_fx.layers.recomputed_weight import is_recomputed, without_keeping
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.schedule.schedule import Schedule

X = torch.rand(4, 3, 8, 8)
ALL, NONE = 0, 2**60  # numbers from which a weight is computed again


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2),
        nn.ReLU(),
        nn.Linear(7, 5),  # of rows with three axes before them
        nn.ZeroPad2d((0, 1, 0, 1)),  # becomes a padding that is no convolution's of torch
        nn.Conv2d(6, 6, 2, groups=2),
        nn.Flatten(),
        nn.Linear(210, 4, bias=False),
    )


def prepared(**settings: object) -> nn.Module:
    qat = ana_fx.prepare(model(), X, precision="int4", **settings).train()
    qat(X)
    ana_fx.Annealer(qat, 100)
    return qat


def step(qat: nn.Module, run=lambda qat: qat(X)) -> list[Tensor | None]:
    """The output and all gradients of a copy of the model."""
    qat = copy.deepcopy(qat)
    torch.manual_seed(3)
    y = run(qat)
    y.square().mean().backward()
    return [y, *(parameter.grad for parameter in qat.parameters())]


def are_equal(found: list[Tensor | None], expected: list[Tensor | None]) -> bool:
    return all(b is None if a is None else torch.equal(a, b) for a, b in zip(found, expected, strict=True))


SCHEDULES = {
    "usual": {},
    "learned scales": {"learn_scales": True},
    "expectation": {"strategy": "expectation", "noise": "normal"},
    "random": {"strategy": "random"},
    "relu": {"gradient": "relu"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_gradient_differs_from_those_with_quantised_weights_that_are_kept(name, monkeypatch):
    qat = prepared(schedule=Schedule(**SCHEDULES[name]))
    steps = {}
    for large in (ALL, NONE):
        monkeypatch.setattr(fake_quantize, "_LARGE", large)
        steps[large] = step(qat)
    assert are_equal(steps[ALL], steps[NONE])


@pytest.mark.parametrize("precision", ["ternary", "binary"])
def test_no_gradient_differs_with_few_levels(precision, monkeypatch):
    qat = ana_fx.prepare(model(), X, precision=precision).train()
    qat(X)
    monkeypatch.setattr(fake_quantize, "_LARGE", ALL)
    found = step(qat)
    monkeypatch.setattr(fake_quantize, "_LARGE", NONE)
    assert are_equal(found, step(qat))


def layer() -> tuple[Tensor, nn.Parameter, nn.Module]:
    quantizer = quantizer_of(IntegerType(4, True), Schedule(), scale_shape=(5, 1))
    quantizer.set_scale(torch.full((5, 1), 0.1))
    quantizer.std.fill_(0.2)
    return torch.randn(7, 6, requires_grad=True), nn.Parameter(torch.randn(5, 6)), quantizer


def product(x: Tensor, weight: nn.Parameter, quantizer: nn.Module) -> Tensor:
    quantized = quantizer(weight)
    with without_keeping(quantized, weight, quantizer):
        return F.linear(x, quantized)


def test_nothing_of_the_size_of_the_weight_is_kept_but_the_weight_itself(monkeypatch):
    monkeypatch.setattr(fake_quantize, "_LARGE", ALL)
    x, weight, quantizer = layer()
    quantized = quantizer(weight)
    with without_keeping(quantized, weight, quantizer):
        y = F.linear(x, quantized)
    kept = [each for each in quantized.grad_fn.saved_tensors if each is not None]
    assert [each.data_ptr() for each in kept if each.numel() == weight.numel()] == [weight.data_ptr()]
    lives = weakref.ref(quantized)
    del quantized, kept
    assert lives() is None
    found = torch.autograd.grad(y.square().sum(), (x, weight))
    expected = torch.autograd.grad(F.linear(x, quantizer(weight)).square().sum(), (x, weight))
    assert all(map(torch.equal, found, expected))


def test_a_step_keeps_no_quantised_weight(monkeypatch):
    qat, sizes = prepared(), {}
    for large in (ALL, NONE):
        monkeypatch.setattr(fake_quantize, "_LARGE", large)
        sizes[large] = bytes_kept(qat)
    weighted = [each for each in layer_maps(qat).values() if each.weight_quantizer is not None]
    weights = sum(each.weight.numel() for each in weighted)
    steps = sum(each.weight_quantizer.scale.numel() for each in weighted)  # what a weight is computed again with
    assert sizes[NONE] - sizes[ALL] >= 4 * (weights - steps)


def bytes_kept(qat: nn.Module) -> int:
    """What a step keeps for backward beside the parameters."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda each: kept.setdefault(each.untyped_storage().data_ptr(), each), lambda each: each
    ):
        qat(X)
    parameters = {each.untyped_storage().data_ptr() for each in qat.parameters()}
    return sum(each.untyped_storage().nbytes() for at, each in kept.items() if at not in parameters)


def test_small_weights_and_those_that_draw_numbers_are_kept(monkeypatch):
    _, weight, quantizer = layer()
    assert not is_recomputed(weight, quantizer)
    monkeypatch.setattr(fake_quantize, "_LARGE", ALL)
    assert is_recomputed(weight, quantizer)
    assert not is_recomputed(weight, quantizer_of(IntegerType(4, True), Schedule(strategy="random")))
    quantizer.register_forward_hook(lambda *_: None)
    assert not is_recomputed(weight, quantizer)


@pytest.mark.parametrize("written", ["weight", "input"])
def test_what_was_written_between_forward_and_backward_is_refused(written):
    x, weight, quantizer = layer()
    x = x * 1.0
    y = product(x, weight, quantizer)
    with torch.no_grad():
        (weight if written == "weight" else x).mul_(0.5)
    with pytest.raises(RuntimeError, match=r"was written between forward and backward: found version \d+, needed \d+"):
        y.sum().backward()


def test_noise_that_moves_between_forward_and_backward_moves_no_gradient(monkeypatch):
    monkeypatch.setattr(fake_quantize, "_LARGE", ALL)
    x, weight, quantizer = layer()
    expected = torch.autograd.grad(product(x, weight, quantizer).square().sum(), (x, weight))
    y = product(x, weight, quantizer).square().sum()
    quantizer.std.fill_(0.0)
    assert all(map(torch.equal, torch.autograd.grad(y, (x, weight)), expected))


def test_hooks_of_the_user_see_everything_else(monkeypatch):
    x, weight, quantizer = layer()
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: seen.append(kept) or len(seen) - 1, lambda at: seen[at]):
        y = product(x, weight, quantizer)
    assert x.data_ptr() in [each.data_ptr() for each in seen]
    found = torch.autograd.grad(y.square().sum(), (x, weight))
    expected = torch.autograd.grad(product(x, weight, quantizer).square().sum(), (x, weight))
    assert all(map(torch.equal, found, expected))


def test_activation_checkpoints_and_autocast_give_the_same_gradients(monkeypatch):
    qat = prepared()

    def cast(qat: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return qat(X).float()

    for run in (partial(checkpoint, use_reentrant=False), cast):
        steps = {}
        for large in (ALL, NONE):
            monkeypatch.setattr(fake_quantize, "_LARGE", large)
            steps[large] = step(qat, (lambda qat, run=run: run(qat, X)) if run is not cast else run)
        assert are_equal(steps[ALL], steps[NONE])
