"""Networks that an attacker crashed: lossless on every target now, or refused in one clear line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import ana_fx
from tests.graphs import Written
from tests.programs import settled

TARGETS = ["onnxruntime", "integer", "qdq", "qdq-int8"]
IMAGES, ROWS, TOKENS, NUMBERS = (4, 6, 5, 5), (4, 6), (4, 3, 6), (4,)
Case = tuple[Callable[[nn.Module, Tensor], object], dict[str, object], tuple[int, ...]]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-0.7, 0.6, max(1, math.prod(shape))).reshape(shape))


def mask() -> nn.Parameter:
    return nn.Parameter(torch.tensor([True, False, True, True, False, True]), requires_grad=False)


def counts() -> nn.Parameter:
    return nn.Parameter(torch.arange(6), requires_grad=False)


def conv() -> nn.Module:
    return nn.Conv2d(6, 6, 1)


def linear() -> nn.Module:
    return nn.Linear(6, 6)


SHIPPED: dict[str, Case] = {
    "times a number": (lambda m, x: (x * m.p).relu(), {"p": parameter()}, IMAGES),
    "times one number": (lambda m, x: x * m.p, {"p": parameter(1)}, IMAGES),
    "times channels": (lambda m, x: x * m.p, {"p": parameter(6, 1, 1)}, IMAGES),
    "plus channels": (lambda m, x: m.c(x) + m.p, {"p": parameter(6, 1, 1), "c": conv()}, IMAGES),
    "plus a sample": (lambda m, x: m.c(x) + m.p, {"p": parameter(1, 6, 1, 1), "c": conv()}, IMAGES),
    "less from channels": (lambda m, x: m.p - m.c(x), {"p": parameter(6, 1, 1), "c": conv()}, IMAGES),
    "a matrix behind images": (lambda m, x: x @ m.p, {"p": parameter(5, 3)}, IMAGES),
    "a matrix behind rows": (lambda m, x: x @ m.p, {"p": parameter(6, 3)}, ROWS),
    "a turned matrix": (lambda m, x: (x @ m.p.t()).relu(), {"p": parameter(3, 6)}, ROWS),
    "a vector": (lambda m, x: x @ m.p, {"p": parameter(6)}, ROWS),
    "a matrix before": (lambda m, x: m.p @ x, {"p": parameter(3, 5)}, IMAGES),
    "matrices before": (lambda m, x: m.p @ x, {"p": parameter(6, 3, 5)}, IMAGES),
    "softmax of a sum": (lambda m, x: (m.l(x) + m.p).softmax(-1), {"p": parameter(), "l": linear()}, ROWS),
    "softmax of a scaled product": (lambda m, x: (x @ x.mT * m.p).softmax(-1) @ x, {"p": parameter()}, TOKENS),
    "softmax of a number joined": (
        lambda m, x: torch.cat([m.p.expand_as(x), m.l(x)], -1).softmax(1),
        {"p": parameter(), "l": linear()},
        ROWS,
    ),
    "softmax of numbers joined": (
        lambda m, x: torch.cat([m.p.expand_as(x), x], -1).softmax(-1),
        {"p": parameter(1)},
        TOKENS,
    ),
    "a sum over images": (lambda m, x: x.relu().sum((2, 3)), {}, IMAGES),
    "a sum over an image's features": (lambda m, x: m.c(x).relu().sum((2, 3)), {"c": conv()}, IMAGES),
    "plus integers made there": (lambda m, x: x + torch.arange(6), {}, ROWS),
    "plus integers": (lambda m, x: m.l(x) + m.p, {"p": counts(), "l": linear()}, ROWS),
    "times a mask": (lambda m, x: m.l(x) * m.p, {"p": mask(), "l": linear()}, ROWS),
    "beside integers": (
        lambda m, x: torch.cat([m.l(x), torch.arange(6).expand(x.size(0), 6)], 1),
        {"l": linear()},
        ROWS,
    ),
    "a pad as large as the kernel": (
        lambda m, x: F.max_pool2d(m.c(x), (2, 3), padding=(1, 0), dilation=2, ceil_mode=True).relu(),
        {"c": conv()},
        (4, 6, 4, 5),
    ),
    "a number for each sample": (lambda m, x: x * 2 + 1, {}, NUMBERS),
    "a number from each sample": (lambda m, x: m.l(x).sum(-1).relu(), {"l": linear()}, ROWS),
    "keys that are keywords": (
        lambda m, x: m.d["class"](m.d["in"](x).relu()),
        {"d": nn.ModuleDict({"in": linear(), "class": linear()})},
        ROWS,
    ),
    "a norm of zeros": (
        lambda m, x: m.n(F.threshold(m.l(x), 1e9, 0.0)),
        {"l": linear(), "n": nn.LayerNorm(6)},
        ROWS,
    ),
}  # fmt: skip


@torch.no_grad()
def ship(model: nn.Module, x: Tensor, target: str, folder: Path, scale: float | None = None) -> None:
    """Prepared, trained for a batch, all steps set, converted and written, it gives the same bits everywhere."""
    qat = ana_fx.prepare(model, x, calibration=[x], target=target)
    qat.train()(x)
    for name, step in settled(qat).eval().named_parameters():
        if scale is not None and name.endswith("scale"):
            step.fill_(scale)
    program, inputs = ana_fx.convert(qat), torch.cat([x, torch.randn_like(x) * 2])
    for wanted, found in zip(pytree.tree_leaves(qat(inputs)), pytree.tree_leaves(program(inputs)), strict=True):
        assert torch.equal(wanted, found)
    assert str(ana_fx.describe(program))
    for io in ("integer", "float"):
        ana_fx.export(program, folder / f"{io}.onnx", io=io)
        assert ana_fx.verify(program, folder / f"{io}.onnx").num_different == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SHIPPED)
def test_it_ships(name, target, tmp_path):
    forward, members, shape = SHIPPED[name]
    ship(Written(forward, **members), torch.randn(shape), target, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scale", [2.0, 12.0, 1e30, 3e38])
def test_steps_of_any_size_ship_even_where_a_clip_leaves_one_level(scale, target, tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.Hardtanh(0, 0.5), nn.Linear(5, 4), nn.ReLU6(), nn.Linear(4, 2))
    ship(model, torch.randn(4, 6), target, tmp_path, scale)


def refusal(model: nn.Module, *example: Tensor, x: Tensor) -> str:
    with pytest.raises(ana_fx.AnaFxError) as caught:
        ana_fx.convert(ana_fx.prepare(model, *example, calibration=[x]).eval())
    assert "needed" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.scaled_dot_product_attention(m.l(x), x, x),
        lambda m, x: (m.l(x) @ x.mT * x.size(-1) ** -0.5).softmax(-1) @ x,
        lambda m, x: m.l(x) / x.size(-1) ** 0.5,
    ],
)
def test_a_factor_computed_from_sizes_asks_for_example_inputs(forward):
    model, x = Written(forward, l=linear()), torch.randn(TOKENS)
    assert "an operand computed from sizes, needed a number; give prepare() example_inputs" in refusal(model, x=x)
    ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]).eval())


@pytest.mark.parametrize("forward", [lambda m, x: (m.l(x), m.p), lambda m, x: {"a": m.l(x), "b": m.p * 2}])
def test_an_output_that_depends_on_no_input_is_refused_at_once(forward):
    x = torch.randn(ROWS)
    with pytest.raises(ana_fx.UnsupportedError, match="is returned, which depends on no input; needed outputs"):
        ana_fx.prepare(Written(forward, l=linear(), p=parameter(3)), x)


def test_a_pool_with_windows_of_padding_only_is_refused():
    model = nn.Sequential(nn.Conv2d(6, 6, 1), nn.MaxPool2d((2, 1), padding=(1, 0), dilation=2), nn.ReLU())
    x = torch.randn(4, 6, 1, 3)
    assert "module '1': max pooling of (1, 3) has windows that hold padding only" in refusal(model, x, x=x)
