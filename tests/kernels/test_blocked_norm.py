"""A batch norm and its quantizer in one: the numbers of the plain code, of a norm that counts in steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ana_fx.kernels import blocks
from ana_fx.kernels.blocked_norm import NormNumbers, normalize_and_quantize
from ana_fx.kernels.fused_quantizer import Grid
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.noise import Uniform
from tests.kernels.test_blocked_quantizer import NOISES
from tests.kernels.test_fused_quantizer import GRIDS, levels_of

_FACTOR = 0.3
_ULP = 2.0**-24


def plain(
    x: Tensor, norm: NormNumbers, scale: Tensor, noise: tuple[float, float], *, grid: Grid, scale_gradient: float,
    output_is_kept: bool = True,
) -> Tensor:  # fmt: skip
    """What it computes, from torch's batch norm and the plain quantizer."""
    del output_is_kept
    step = positive(scale.detach())
    offset = torch.tensor(grid.offset) - torch.tensor(noise[0])
    others = (norm.uses_batch, norm.momentum, norm.eps)
    running = [each.clone() for each in (norm.mean, norm.variance)]
    y = F.batch_norm(x, *running, norm.weight, norm.bias, *others)
    with torch.no_grad():
        v = F.batch_norm(x, norm.mean, norm.variance, norm.weight / step, norm.bias / step + offset, *others)
    v.requires_grad_()
    ends, std = levels_of(grid, step), torch.tensor(noise[1])
    with torch.enable_grad():
        level = fake_quantize(
            v, torch.ones(()), torch.zeros(()), std, levels=Levels(ends.lo, ends.hi, 0.0), noise=Uniform(),
            strategy=Strategy.MODE, num_neighbours=0,
        )  # fmt: skip
    (slope,) = torch.autograd.grad(level.sum(), v)
    c = (level.detach() - y.detach() / step * slope) * scale.detach().sign() * scale_gradient
    return _Plain.apply(y, scale, level.detach() * step, slope, c)


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: Tensor, value: Tensor, slope: Tensor, c: Tensor) -> Tensor:
        ctx.slope, ctx.c, ctx.shape = slope, c, scale.shape
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad * ctx.slope, (grad * ctx.c).sum().reshape(ctx.shape), None, None, None


def norm_of(x: Tensor, *, uses_batch: bool = True) -> NormNumbers:
    channels = x.shape[1]
    weight, bias = torch.rand(channels) * 4 - 1, torch.randn(channels)
    mean, variance = torch.randn(channels), torch.rand(channels) + 0.5
    return NormNumbers(weight.requires_grad_(), bias.requires_grad_(), mean, variance, uses_batch, 0.1, 1e-5)


def copy_of(norm: NormNumbers) -> NormNumbers:
    return norm._replace(mean=norm.mean.clone(), variance=norm.variance.clone())


def run(
    of: Any, x: Tensor, norm: NormNumbers, scale: Tensor, noise: tuple[float, float], grid: Grid, upstream: Tensor,
    **options: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The output, the running statistics, the gradients of x, γ and β, and that of the scale."""
    leaf, norm = x.clone().requires_grad_(), copy_of(norm)
    out = of(leaf, norm, scale, noise, grid=grid, scale_gradient=_FACTOR, **options)
    grads = torch.autograd.grad(out, [leaf, norm.weight, norm.bias, *[scale] * scale.requires_grad], upstream)
    return out.detach(), norm.mean, norm.variance, *grads


def check(
    x: Tensor, scale: Tensor, noise: tuple[float, float], grid: Grid, *, uses_batch: bool = True, **options: bool
) -> None:
    """All is equal, but for sums in another order, and bins whose parts tell c to 1 / 250."""
    norm, upstream = norm_of(x, uses_batch=uses_batch), torch.randn_like(x)
    expected = run(plain, x, norm, scale, noise, grid, upstream)
    found = run(normalize_and_quantize, x, norm, scale, noise, grid, upstream, **options)
    assert all(map(torch.equal, found[:6], expected[:6]))
    if scale.requires_grad:
        # Blocks of 2**18 numbers, so at most 2**4 roundings of a product or a sum of their sizes; c lies below u + 255.
        step = positive(scale.detach())
        read = F.batch_norm(x, norm.mean.clone(), norm.variance.clone(), norm.weight, norm.bias, uses_batch)
        size = float((upstream.abs() * ((read.detach() / step).abs() + 255)).sum())
        keeps = options.get("output_is_kept", True)
        tolerance = size * 2.0**-18 + (0.0 if keeps else float(upstream.abs().sum()) / 250)
        assert found[6].shape == scale.shape
        assert abs(float(found[6] - expected[6])) <= _FACTOR * tolerance
        assert float(found[6]) != 0


@pytest.fixture(params=[2**18, 64], ids=["one block", "many blocks"], autouse=True)
def _block(request, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", request.param)


@pytest.mark.parametrize("grid", GRIDS, ids=range(len(GRIDS)))
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("uses_batch", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("learns", "is_kept"), [(False, True), (True, True), (True, False)], ids=["fixed", "kept", "not kept"]
)
def test_it_is_the_plain_code_of_a_norm_that_counts_in_steps(learns, is_kept, uses_batch, noise, grid):
    for shape in ((8, 6, 5, 5), (16, 7)):
        scale = torch.tensor(0.07, requires_grad=learns)
        check(torch.randn(shape) * 3, scale, noise, grid, uses_batch=uses_batch, output_is_kept=is_kept)


@pytest.mark.parametrize("is_kept", [True, False])
def test_numbers_may_lie_in_any_order(is_kept):
    x, scale = torch.randn(4, 6, 6, 5).to(memory_format=torch.channels_last), torch.tensor(0.1, requires_grad=True)
    for given in (x, x[:, :, ::2]):
        check(given, scale, NOISES[0], GRIDS[1], output_is_kept=is_kept)
    norm, upstream = norm_of(x), torch.randn(4, 6, 6, 5)  # a gradient in another order: torch adds up in yet another
    expected = run(plain, x, norm, scale, NOISES[0], GRIDS[1], upstream)
    found = run(normalize_and_quantize, x, norm, scale, NOISES[0], GRIDS[1], upstream)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1:6], expected[1:6])


@pytest.mark.parametrize("scale", [-0.1, 2.0**-50])
def test_a_step_that_is_negative_or_small_has_its_gradient(scale):
    check(torch.randn(8, 6, 5, 5), torch.tensor([scale], requires_grad=True), NOISES[0], GRIDS[0])


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**70])
def test_a_step_that_ran_away_has_none(scale):
    x, scale = torch.randn(8, 6, 5, 5), torch.tensor(scale, requires_grad=True)
    found = run(normalize_and_quantize, x, norm_of(x), scale, NOISES[0], GRIDS[0], torch.ones(x.shape))
    assert float(found[6]) == 0


def test_levels_are_those_of_one_after_the_other_but_next_to_a_threshold():
    x = torch.randn(64, 32, 8, 8) * 3
    norm, scale, grid = norm_of(x), torch.tensor(0.0123), GRIDS[0]
    found = normalize_and_quantize(x, copy_of(norm), scale, NOISES[0], grid=grid) / scale
    y = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    u = y.detach() / scale
    expected = torch.floor(u + 0.5).clamp(grid.lowest, grid.highest)
    # z · γ + β has at most six roundings either way, each of numbers no larger than these; neither does without.
    size = (y.detach() - norm.bias[:, None, None]).abs() / scale + (norm.bias.abs() / scale)[:, None, None] + 1
    is_next_to_threshold = (u + 0.5 - torch.round(u + 0.5)).abs() <= 12 * _ULP * size
    assert bool(((found.round() == expected) | is_next_to_threshold).all())
    assert (found.round() - expected).abs().max() <= 1


@pytest.mark.parametrize("noise", NOISES)
def test_gradients_of_gradients_are_those_of_a_norm_and_a_quantizer(noise):
    x, scale, found = torch.randn(8, 6, 5, 5), torch.tensor(0.2), []
    norm = norm_of(x)
    for of in (plain, normalize_and_quantize):
        leaf = x.clone().requires_grad_()
        out = of(leaf, copy_of(norm), scale, noise, grid=GRIDS[0], scale_gradient=1.0)
        grads = torch.autograd.grad(out.pow(3).sum(), [leaf, norm.weight], create_graph=True)
        loss = sum(grad.square().sum() for grad in grads)
        found.append(torch.autograd.grad(loss, [leaf, norm.weight]))
    assert all(map(torch.equal, *found))
    assert all(each.any() for each in found[0]) == (noise[1] > 0)


@pytest.mark.parametrize("is_kept", [True, False])
def test_gradients_of_gradients_with_respect_to_a_scale_are_refused(is_kept):
    x, scale = torch.randn(8, 6, 5, 5, requires_grad=True), torch.tensor(0.2, requires_grad=True)
    out = normalize_and_quantize(x, norm_of(x), scale, NOISES[0], grid=GRIDS[0], output_is_kept=is_kept)
    with pytest.raises(RuntimeError, match="prepare the model with a schedule that leaves scales as they are"):
        torch.autograd.grad(out.square().sum(), x, create_graph=True)


def test_what_is_frozen_gets_no_gradient_and_the_scale_has_its_own_all_the_same():
    x, upstream = torch.randn(8, 6, 5, 5), torch.randn(8, 6, 5, 5)
    norm, scale = norm_of(x), torch.tensor(0.2, requires_grad=True)
    expected = run(plain, x, norm, scale, NOISES[0], GRIDS[0], upstream)[6]
    frozen = norm._replace(weight=norm.weight.detach(), bias=norm.bias.detach())
    out = normalize_and_quantize(x, frozen, scale, NOISES[0], grid=GRIDS[0], scale_gradient=_FACTOR)
    out.backward(upstream)
    assert float(scale.grad) == pytest.approx(float(expected), rel=1e-3)
    assert frozen.weight.grad is frozen.bias.grad is None


@pytest.mark.parametrize(("is_kept", "num_bytes"), [(True, 4 + 1 + 4), (False, 4 + 1)])
def test_the_norms_output_is_not_kept(is_kept, num_bytes):
    x, kept = torch.randn(8, 6, 5, 5, requires_grad=True), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scale = torch.tensor(0.1, requires_grad=True)
        normalize_and_quantize(x, norm_of(x), scale, NOISES[0], grid=GRIDS[0], output_is_kept=is_kept)
    others = sum(kept.values()) - num_bytes * x.numel()
    assert 0 <= others <= 4 * 6 * 4 + 4  # four numbers a channel, and the scale


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_graph_goes_back_as_often_as_it_is_retained(is_kept):
    x, scale = torch.randn(8, 6, 5, 5, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    norm = norm_of(x)
    leaves = [x, norm.weight, norm.bias, scale]
    out = normalize_and_quantize(x, norm, scale, NOISES[0], grid=GRIDS[0], output_is_kept=is_kept)
    first, second = (torch.autograd.grad(out.sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))
    third = torch.autograd.grad(out.sum(), leaves)
    assert all(map(torch.equal, first, third))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(out.sum(), leaves)
