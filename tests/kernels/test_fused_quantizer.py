"""The noisy quantizer in one kernel: the numbers and the gradients of the plain code.

This covers `kernels/triton_kernels.py` too.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ana_fx.kernels import fused_quantizer
from ana_fx.kernels.fused_quantizer import Grid, fused_fake_quantize
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.noise import Uniform
from tests.kernel_helpers import DEVICE, IS_INTERPRETED, needs_kernels

pytestmark = needs_kernels

HALF_A_STEP = 0.5 / 3**0.5
GRIDS = [
    Grid(-127, 127, 0.5, -torch.inf, torch.inf),
    Grid(0, 255, 0.5, 0.0, torch.inf),
    Grid(0, 255, 0.5, 0.0, 6.0),
    Grid(-1, 1, 0.0, -torch.inf, torch.inf),
    Grid(-8, 7, 0.5, -0.1, 0.21),
]
SHAPES = [(4, 33, 5, 3), (16, 130), (8, 3, 3, 3)]


def levels_of(grid: Grid, scale: Tensor) -> Levels:
    """The levels as tensors, for each step."""
    lo, hi = (torch.round(end / scale).clamp(grid.lowest, grid.highest) for end in (grid.minimum, grid.maximum))
    return Levels(lo.clamp_max(0), hi.clamp_min(0), grid.offset)


def check(x: Tensor, scale: Tensor, noise: tuple[float, float], grid: Grid, *, keeps_parts: bool = False) -> None:
    """The kernels give what eager code gives, forward and backward; if parts of bins are kept, to 1 / 250 of a step."""
    mean, std = (torch.tensor(number, device=DEVICE) for number in noise)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    learned = [scale] * scale.requires_grad
    step = positive(scale)
    reference = fake_quantize(
        inputs[0], step, mean, std, levels=levels_of(grid, step.detach()), noise=Uniform(),
        strategy=Strategy.MODE, num_neighbours=0, scale_gradient=0.3,
    )  # fmt: skip
    given = inputs[1] * 1 if keeps_parts else inputs[1]
    options = {"grid": grid, "scale_gradient": 0.3, "noise_stays": keeps_parts}
    fused = fused_fake_quantize(given, scale, mean, std, **options)
    assert torch.equal(fused, reference)
    grad = torch.randn(x.shape, device=DEVICE)
    expected = torch.autograd.grad(reference, [inputs[0], *learned], grad)
    found = torch.autograd.grad(fused, [inputs[1], *learned], grad)
    assert torch.equal(found[0], expected[0])
    if learned:  # a sum of as many numbers in another order: 2**-24 of their size for each doubling
        size = (grad.abs() * ((x.float() / step.detach()).abs() + 255)).sum()
        tolerance = float(size) * 2.0**-20 + keeps_parts * 0.3 * float(grad.abs().sum()) / 250
        assert float((found[1] - expected[1]).abs().max()) <= tolerance


@pytest.mark.parametrize("learns_scale", [False, True])
@pytest.mark.parametrize("is_per_channel", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernels_are_the_reference_bit_for_bit(shape, is_per_channel, learns_scale):
    for grid in GRIDS:
        for noise in ((0.0, HALF_A_STEP), (0.13, 0.1), (0.0, 0.0)):
            steps = torch.rand((shape[0], *[1] * (len(shape) - 1)) if is_per_channel else (), device=DEVICE)
            x = torch.randn(shape, device=DEVICE)
            check(x, (steps * 0.1 + 0.01).requires_grad_(learns_scale), noise, grid)


@pytest.mark.parametrize("mean", [0.0, 0.13])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_byte_for_each_number_tells_both_gradients_where_the_noise_stays(shape, mean):
    for grid in GRIDS:
        for step in (0.05, -0.02, 2.0**-70, 2.0**70):
            scale = torch.tensor(step, device=DEVICE, requires_grad=True)
            check(torch.randn(shape, device=DEVICE), scale, (mean, HALF_A_STEP), grid, keeps_parts=True)


def test_a_byte_for_each_number_is_all_that_is_kept():
    kept = []
    x, scale = torch.randn(4, 80, device=DEVICE, requires_grad=True), torch.tensor(0.1, device=DEVICE)
    noise = [torch.tensor(number, device=DEVICE) for number in (0.0, HALF_A_STEP)]
    with torch.autograd.graph.saved_tensors_hooks(lambda each: (kept.append(each), each)[1], lambda each: each):
        fused_fake_quantize(x * 1, scale.requires_grad_(), *noise, grid=GRIDS[0], noise_stays=True)
    assert [(each.dtype, each.numel()) for each in kept if each.numel() > 2] == [(torch.uint8, 340)]  # and the noise


@pytest.mark.parametrize("block", [16, 2048])
def test_what_many_programs_leave_is_added_up_and_at_every_backward_alike(block, monkeypatch):
    monkeypatch.setattr(fused_quantizer, "_BLOCK", block)
    shape = (40, 33) if IS_INTERPRETED else (1000, 4097)  # 2,001 programs that run at once, or a quarter of a million
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    scale = torch.tensor(0.05, device=DEVICE, requires_grad=True)
    mean, std = torch.tensor(0.0, device=DEVICE), torch.tensor(HALF_A_STEP, device=DEVICE)
    fused = fused_fake_quantize(x * 1, scale, mean, std, grid=GRIDS[0], noise_stays=True)
    grad = torch.randn(shape, device=DEVICE).abs()
    found = [torch.autograd.grad(fused, scale, grad, retain_graph=True)[0] for _ in range(5)]
    assert all(torch.equal(found[0], each) for each in found)
    steps = x.detach().double() / scale.detach()
    level = torch.floor(steps + 0.5).clamp(-127, 127)
    by_step = torch.where((steps + 0.5 < -127) | (steps + 0.5 > 128), level, level - steps)
    expected = (by_step * grad).sum()
    assert float((found[0] - expected).abs()) <= float(grad.double().sum()) * (1 / 250 + 127 * 2.0**-20)


def test_gradients_of_gradients_are_those_of_the_reference_or_refused():
    leaves = [torch.linspace(-3, 3, 41, device=DEVICE).requires_grad_() for _ in range(2)]
    scale, mean, std = (torch.tensor(number, device=DEVICE) for number in (0.02, 0.0, HALF_A_STEP))
    levels = levels_of(GRIDS[0], scale)
    options = {"levels": levels, "noise": Uniform(), "strategy": Strategy.MODE, "num_neighbours": 0}
    quantized = (
        fused_fake_quantize(leaves[0], scale, mean, std, grid=GRIDS[0]),
        fake_quantize(leaves[1], scale, mean, std, **options),
    )
    found = []
    for y, leaf in zip(quantized, leaves, strict=True):
        (grad,) = torch.autograd.grad(y.pow(3).sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), leaf)[0])
    assert torch.equal(*found)
    assert found[0].any()
    loss = fused_fake_quantize(leaves[0] * 1, scale.requires_grad_(), mean, std, grid=GRIDS[0]).square().sum()
    with pytest.raises(RuntimeError, match="prepare the model with a schedule that leaves scales as they are"):
        torch.autograd.grad(loss, leaves[0], create_graph=True)


def test_the_layout_of_memory_changes_nothing():
    x = torch.randn((4, 6, 5, 3), device=DEVICE)
    scale = torch.rand((4, 1, 1, 1), device=DEVICE) * 0.1 + 0.01
    for moved in (x.to(memory_format=torch.channels_last), x.transpose(1, 2), x[:, ::2], x[:0, :, 1:]):
        if moved.numel():
            check(moved, scale, (0.0, HALF_A_STEP), GRIDS[0])


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")  # of the interpreter
def test_numbers_that_are_not_finite_are_quantised_as_in_eager_code():
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 1e-40, 0.0], device=DEVICE)
    scale, std, mean = (
        torch.tensor(0.1, device=DEVICE),
        torch.tensor(0.2, device=DEVICE),
        torch.tensor(0.0, device=DEVICE),
    )
    fused = fused_fake_quantize(x, scale, mean, std, grid=GRIDS[0])
    reference = fake_quantize(
        x, scale, mean, std, levels=Levels(-127, 127, 0.5), noise=Uniform(), strategy=Strategy.MODE,
        num_neighbours=0,
    )  # fmt: skip
    assert torch.equal(fused.nan_to_num(7.0), reference.nan_to_num(7.0))
    assert fused[0].isnan()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")  # of the interpreter
def test_infinite_numbers_leave_the_step_its_gradient():
    std, mean = torch.tensor(HALF_A_STEP, device=DEVICE), torch.tensor(0.0, device=DEVICE)
    found = []
    for end in (torch.inf, 1e6):
        scale = torch.tensor(0.1, device=DEVICE, requires_grad=True)
        x = torch.tensor([end, -end, 0.23, -0.01], device=DEVICE)
        fused_fake_quantize(x, scale, mean, std, grid=GRIDS[0], scale_gradient=0.5).sum().backward()
        found.append(scale.grad)
    assert torch.equal(*found)


@pytest.mark.skipif(IS_INTERPRETED, reason="needs CUDA: the interpreter rounds to bfloat16 in another way")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_halves_are_quantised_in_float32_and_their_gradients_rounded_once(dtype):
    for grid in GRIDS:
        x = torch.randn((64, 130), device=DEVICE).to(dtype)
        check(x, torch.tensor(0.03, device=DEVICE), (0.0, HALF_A_STEP), grid)
