"""The noisy quantizer in blocks: the numbers and the gradients of the plain code.

This covers `kernels/bins.py`, `kernels/blocks.py` and `kernels/kept_bytes.py` too.
"""

from __future__ import annotations

import copy
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ana_fx.kernels import blocks
from ana_fx.kernels.bins import NoiseReader, bins_of
from ana_fx.kernels.blocked_quantizer import blocked_fake_quantize
from ana_fx.kernels.fused_quantizer import Grid
from ana_fx.layers.fake_quantize import fake_quantize
from ana_fx.numerics.scale_search import positive
from ana_fx.schedule.degrees import Strategy
from ana_fx.schedule.noise import Uniform
from tests.kernels.test_fused_quantizer import GRIDS, HALF_A_STEP, SHAPES, levels_of

NOISES = [(0.0, HALF_A_STEP), (0.13, HALF_A_STEP), (0.13, 0.1), (0.0, 0.0)]
_FACTOR = 0.3


def reference(x: Tensor, scale: Tensor, noise: tuple[float, float], grid: Grid) -> Tensor:
    """What the plain code gives."""
    step = positive(scale)
    mean, std = map(torch.tensor, noise)
    return fake_quantize(
        x, step, mean, std, levels=levels_of(grid, step.detach()), noise=Uniform(), strategy=Strategy.MODE,
        num_neighbours=0, scale_gradient=_FACTOR,
    )  # fmt: skip


def blocked(x: Tensor, scale: Tensor, noise: tuple[float, float], grid: Grid) -> Tensor:
    return blocked_fake_quantize(x, scale, noise, grid=grid, scale_gradient=_FACTOR)


def check(x: Tensor, scale: Tensor, noise: tuple[float, float], grid: Grid, *, is_leaf: bool = True) -> None:
    """Values and gradients of x are equal; those of the scale are as near as what is kept of x tells."""
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    inputs = leaves if is_leaf else [leaf * 1 for leaf in leaves]
    expected = reference(inputs[0], scale, noise, grid)
    found = blocked(inputs[1], scale, noise, grid)
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32
    grad = torch.randn(x.shape)
    learned = [scale] * scale.requires_grad
    of_reference = torch.autograd.grad(expected, [leaves[0], *learned], grad)
    of_blocked = torch.autograd.grad(found, [leaves[1], *learned], grad)
    assert torch.equal(of_blocked[0], of_reference[0])
    if learned:
        # Sums in another order, 2**-20 of their size; and where x is not there, its place in its bin to 1 / 250.
        u = (x.float() / positive(scale.detach())).clamp(-1e3, 1e3)
        tolerance = float((grad.abs() * (u.abs() + 255)).sum()) * 2.0**-20
        tolerance += 0.0 if is_leaf else float(grad.abs().sum()) / 250
        assert float((of_blocked[1] - of_reference[1]).abs().max()) <= _FACTOR * tolerance


def scale_of(shape: tuple[int, ...], *, is_per_channel: bool) -> Tensor:
    return torch.rand((shape[0], *[1] * (len(shape) - 1)) if is_per_channel else ()) * 0.1 + 0.01


@pytest.fixture(params=[2**18, 64], ids=["one block", "many blocks"], autouse=True)
def _block(request, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", request.param)


@pytest.mark.parametrize("is_leaf", [True, False], ids=["parameter", "activation"])
@pytest.mark.parametrize("learns_scale", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1000,), (3, 0, 2)], ids=str)
def test_it_is_the_reference_bit_for_bit(shape, learns_scale, is_leaf):
    for grid in GRIDS:
        clips = grid.maximum < math.inf or grid.minimum not in (0.0, -math.inf)
        for is_per_channel in (False, True)[: 1 if clips or len(shape) == 1 else 2]:
            for noise in NOISES:
                scale = scale_of(shape, is_per_channel=is_per_channel).requires_grad_(learns_scale)
                check(torch.randn(shape) * 3, scale, noise, grid, is_leaf=is_leaf)


@settings(max_examples=200, deadline=None)
@given(
    levels=st.tuples(st.integers(-128, 0), st.integers(0, 255)),
    noise=st.tuples(st.sampled_from([0.0, 0.25, -0.4]), st.sampled_from([HALF_A_STEP, 0.2887, 0.05, 0.0])),
    offset=st.sampled_from([0.5, 0.0]),
    steps=st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20),
)
def test_numbers_at_the_ends_of_windows_have_the_slope_of_the_reference(levels, noise, offset, steps):
    grid = Grid(*levels, offset, -torch.inf, torch.inf)
    ends = [end + shift for end in (*levels, levels[0] + 1) for shift in (-0.5, 0.0, 0.5)]
    v = torch.tensor([*ends, *steps])
    around = torch.cat([v, *(torch.nextafter(v, torch.full_like(v, end)) for end in (-torch.inf, torch.inf))])
    check(around - offset, torch.tensor(1.0), noise, grid, is_leaf=False)
    check(around - offset, torch.tensor(1.0, requires_grad=True), noise, grid, is_leaf=False)


def test_whole_bins_end_with_the_last_floats_that_noise_reaches_a_threshold_from():
    for lo, hi in ((0, 255), (-127, 127), (-1, 1), (-8, 7), (0, 1)):
        bins = bins_of(Grid(lo, hi, 0.5, -torch.inf, torch.inf), 1.0, *NOISES[0])
        assert bins.is_whole
        for end, beyond, threshold in ((bins.lower, -torch.inf, lo + 1.0), (bins.upper, torch.inf, float(hi))):
            inside = torch.tensor(end)
            outside = torch.nextafter(inside, torch.tensor(beyond))
            width = Uniform().width(torch.tensor(HALF_A_STEP))
            assert bool((threshold - inside).abs() < width)
            assert not bool((threshold - outside).abs() < width)
            assert float(torch.floor(inside)) in (lo, hi)


def test_the_layout_of_memory_changes_nothing():
    x = torch.randn((4, 6, 5, 3))
    for scale in (torch.rand((4, 1, 1, 1)) * 0.1 + 0.01, torch.tensor(0.05, requires_grad=True)):
        for moved in (x.to(memory_format=torch.channels_last), x.transpose(1, 2), x[:, ::2]):
            for is_leaf in (True, False):
                check(moved, scale, NOISES[0], GRIDS[0], is_leaf=is_leaf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_floats_are_quantised_in_float32_and_their_gradients_rounded_once(dtype):
    for grid in GRIDS:
        for learns_scale in (False, True):
            x, scale = torch.randn((64, 130)).to(dtype), torch.tensor(0.03, requires_grad=learns_scale)
            for is_leaf in (True, False):
                check(x, scale, NOISES[0], grid, is_leaf=is_leaf)


@pytest.mark.parametrize("is_leaf", [True, False])
def test_numbers_that_are_not_finite_are_quantised_as_in_plain_code(is_leaf):
    x = torch.tensor([torch.inf, -torch.inf, 3e38, -3e38, 1e-40, 0.0])
    for noise in NOISES:
        check(x, torch.tensor(0.1, requires_grad=True), noise, GRIDS[0], is_leaf=is_leaf)
    x = torch.tensor([torch.nan, 0.3]).requires_grad_(is_leaf)
    assert blocked(x, torch.tensor(0.1), NOISES[0], GRIDS[0]).isnan().tolist() == [True, False]


def test_a_step_that_is_negative_or_runs_away_has_the_gradient_of_the_reference():
    for scale in (-0.1, 2.0**-70, 2.0**70):
        for is_leaf in (True, False):
            check(torch.randn(50), torch.tensor(scale, requires_grad=True), NOISES[0], GRIDS[0], is_leaf=is_leaf)


@pytest.mark.parametrize("is_leaf", [True, False])
@pytest.mark.parametrize(("scale", "noise"), [(math.nan, NOISES[0]), (0.1, (math.nan, 0.2)), (0.1, (0.0, math.nan))])
def test_a_scale_or_noise_that_is_not_a_number_gives_none_as_in_plain_code(scale, noise, is_leaf):
    for grid in GRIDS:  # some with an end whose level follows from the scale
        leaf = torch.randn(40).requires_grad_()
        x = leaf if is_leaf else leaf * 1
        found, expected = (of(x, torch.tensor(scale), noise, grid) for of in (blocked, reference))
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
        found.sum().backward()


def test_a_parameter_is_all_that_is_kept_and_of_other_numbers_a_byte_each():
    def kept(x: Tensor) -> list[torch.dtype]:
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda each: (found.append(each), each)[1], lambda each: each):
            blocked(x, torch.tensor(0.1, requires_grad=True), NOISES[0], GRIDS[1])
        return [each.dtype for each in found if each.numel() > 1 and each is not x]

    parameter = torch.randn(4, 5, requires_grad=True)
    assert kept(parameter) == []
    assert kept(parameter * 1) == [torch.int8]


def test_threads_do_not_share_room():
    x = [torch.randn(2000) for _ in range(8)]
    scale = torch.tensor(0.05)
    expected = [blocked(each.requires_grad_(), scale, NOISES[0], GRIDS[0]) for each in x]
    wrong = []

    def run(index: int) -> None:
        for _ in range(30):
            leaf = x[index].detach().requires_grad_()
            y = blocked(leaf * 1, scale, NOISES[0], GRIDS[0])
            if not torch.equal(y, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


@pytest.mark.parametrize("is_leaf", [True, False])
def test_gradients_of_gradients_are_those_of_the_reference(is_leaf):
    leaves = [torch.linspace(-3, 3, 41).requires_grad_() for _ in range(2)]
    inputs = leaves if is_leaf else [leaf * 1 for leaf in leaves]
    found = []
    for quantize, leaf, x in zip((blocked, reference), leaves, inputs, strict=True):
        y = quantize(x, torch.tensor(0.02), NOISES[0], GRIDS[0])
        (grad,) = torch.autograd.grad(y.pow(3).sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), leaf)[0])
    assert torch.equal(*found)
    assert found[0].any()


def test_gradients_of_gradients_with_respect_to_a_scale_are_refused():
    x = torch.randn(5, requires_grad=True)
    loss = blocked(x * 1, torch.tensor(0.1, requires_grad=True), NOISES[0], GRIDS[0]).square().sum()
    with pytest.raises(RuntimeError, match="prepare the model with a schedule that leaves scales as they are"):
        torch.autograd.grad(loss, x, create_graph=True)


def test_what_was_computed_once_in_inference_mode_serves_training_and_whatever_torch_makes_by_default():
    x, scale = torch.randn(40, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    noise = (0.0123, HALF_A_STEP)  # of no other test: nothing is known of it yet
    expected = blocked(x * 1, scale, (0.0, HALF_A_STEP), GRIDS[0]._replace(offset=0.5 - 0.0123))
    with torch.inference_mode():
        blocked(torch.randn(40), scale, noise, GRIDS[0])
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = blocked(x * 1, scale, noise, GRIDS[0])
        found.sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(found, expected)
    assert (scale.grad.dtype, scale.grad.device.type) == (torch.float32, "cpu")


def test_the_noise_is_read_again_after_every_write_and_by_every_copy():
    mean, std, reader = torch.tensor(0.0), torch.tensor(0.5), NoiseReader()
    assert reader.read(mean, std) == (0.0, 0.5)
    std.fill_(0.25)
    assert reader.read(mean, std) == (0.0, 0.25)
    torch._foreach_copy_([mean], [torch.tensor(0.125)])
    assert reader.read(mean, std) == (0.125, 0.25)
    assert reader.read(mean, torch.tensor(0.75)) == (0.125, 0.75)
    std.data.fill_(0.5)  # no version tells
    reader.forget()
    assert reader.read(mean, std) == (0.125, 0.5)
    other = copy.deepcopy(reader)
    assert other.read(torch.tensor(1.0), torch.tensor(2.0)) == (1.0, 2.0)
    assert reader.read(mean, std) == (0.125, 0.5)
    with torch.inference_mode():
        assert reader.read(torch.tensor(3.0), torch.tensor(4.0)) == (3.0, 4.0)
