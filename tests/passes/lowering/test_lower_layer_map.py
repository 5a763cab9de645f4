"""Every accumulator that can occur, whole or partial, lies in the range for which its layer was proven.

This covers `program/integer_layers.py` and `program/integer_modules.py` too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import ana_fx
from ana_fx.graph import calls_to, module_of
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.product import Product
from ana_fx.passes.lowering.recording import run
from ana_fx.program.data_movement import Movement, Pad, Rearrange
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.integer_modules import IntegerConstant, IntegerSoftmax, IntegerTable
from ana_fx.program.program_borders import Quantize
from tests.graphs import Written

SHAPE = (2, 6, 6)
WITHOUT_ZERO: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "positive": lambda x: x.clamp(0.2, 1),
    "negative": lambda x: x.clamp(-1, -0.2),
}
PARTS: dict[str, nn.Module | nn.Parameter] = {
    "conv": nn.Conv2d(2, 4, 3, padding=1),
    "wide": nn.Conv2d(2, 4, 3, padding=4, dilation=3, stride=2),
    "inside": nn.Conv2d(2, 4, 3),
    "up": nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1),
    "cropped": nn.ConvTranspose2d(2, 4, 2, stride=3, padding=1),
    "row": nn.Linear(8, 3),
    "all": nn.Linear(72, 3),
    "one": nn.Conv2d(4, 3, 1),
    "token": nn.Parameter(torch.linspace(0.5, 1, 72).reshape(1, *SHAPE)),
}
READERS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a padded convolution": lambda m, x: m.conv(x).relu(),
    "a dilated one with more padding than image": lambda m, x: m.wide(x).relu(),
    "a transposed convolution": lambda m, x: m.up(x).relu(),
    "one with gaps and crops": lambda m, x: m.cropped(x).relu(),
    "a pad": lambda m, x: m.inside(F.pad(x, (2, 0, 3, 1))).relu(),
    "a pad of one side": lambda m, x: m.row(F.pad(x, (0, 2))).relu(),
    "all features": lambda m, x: m.all(x.flatten(1)).relu(),
    "a head": lambda m, x: m.all(x.flatten(1)),
    "a padded average": lambda m, x: F.avg_pool2d(x, 3, 2, 1),
    "an average that overhangs": lambda m, x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True, count_include_pad=False),
    "an average with a divisor": lambda m, x: F.avg_pool2d(x, 3, 2, 1, divisor_override=2),
    "uneven windows": lambda m, x: F.adaptive_avg_pool2d(x, 4),
    "a mean": lambda m, x: x.mean((2, 3)),
    "a sum": lambda m, x: x.sum(1, keepdim=True),
    "an interpolation": lambda m, x: F.interpolate(x, size=(9, 4), mode="bilinear"),
    "a pool that overhangs": lambda m, x: m.conv(F.max_pool2d(x, 3, 2, 1, ceil_mode=True)).relu(),
    "a padded sum": lambda m, x: F.pad(x, (1, 1)) + F.pad(x, (2, 0)),
    "a padded product": lambda m, x: F.pad(x, (1, 1)) * F.pad(x, (0, 2)),
    "a matrix product": lambda m, x: F.pad(x, (0, 3)) @ F.pad(x, (3, 0)).transpose(2, 3),
    "a constant": lambda m, x: m.conv(x * m.token).relu(),
    "a constant beside it": lambda m, x: m.one(torch.cat([x, m.token.expand(x.size(0), -1, -1, -1)], 1)).relu(),
    "a padded constant": lambda m, x: m.conv(x) + m.conv(m.token.expand(x.size(0), -1, -1, -1)),
}  # fmt: skip


def ready(model: nn.Module, x: Tensor, **settings: object) -> GraphModule:
    qat = ana_fx.prepare(model, x, calibration=[x], **settings)
    qat.train()(x)
    return qat.eval()


def values(node: Node) -> tuple[int, int]:
    """The least and the largest level that a node of a program can give."""
    module = module_of(node)
    if isinstance(module, Quantize):
        return module.integer_type.qmin, module.integer_type.qmax
    if isinstance(module, IntegerTable):
        return int(module.table.min()), int(module.table.max())
    if isinstance(module, IntegerConstant):
        return int(module.levels.min()), int(module.levels.max())
    if isinstance(module, IntegerSoftmax):
        return 0, module.highest
    if isinstance(module, IntegerMap):
        return module.lo, module.hi
    is_padded = isinstance(module, Pad) or (isinstance(module, Rearrange) and bool((module.index == 0).any()))
    sources = node.all_input_nodes if isinstance(module, Movement) else node.all_input_nodes[:1]
    ends = [*map(values, sources), *([(0, 0)] if is_padded else [])]
    return min(low for low, _ in ends), max(high for _, high in ends)


def extremes(module: IntegerMap | IntegerHead, inputs: list[Tensor], ends: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Of every accumulator the least and the largest, and the largest partial sum in absolute value."""
    weight = None if module.weight is None else module.weight.double()
    if isinstance(module.operator, Product):
        corners = [
            tuple(torch.tensor(end)[torch.randint(2, x.shape)] for x, end in zip(inputs, ends, strict=True))
            for _ in range(200)
        ]
        found = torch.cat([module.operator.accumulate(corner, None) for corner in corners])
        return found.amin(0)[None], found.amax(0)[None], found.abs().amax(0)[None]
    jacobians = torch.autograd.functional.jacobian(
        lambda *x: module.operator.accumulate(x, weight), tuple(x.double() for x in inputs)
    )
    low = high = most = least = torch.zeros(())
    for jacobian, x, (lo, hi) in zip(jacobians, inputs, ends, strict=True):
        products = torch.stack([jacobian * lo, jacobian * hi]).flatten(-x.ndim)
        low, high = low + products.amin(0).sum(-1), high + products.amax(0).sum(-1)
        least = least + products.amin(0).clamp_max(0).sum(-1)
        most = most + products.amax(0).clamp_min(0).sum(-1)
    return low, high, torch.maximum(most, -least)


def check_domains(program: GraphModule, x: Tensor) -> int:
    """How many layers were found to have all that can reach them in their domains."""
    seen, num_layers = run(program, (x,)), 0
    for node in calls_to(program, IntegerMap, IntegerHead):
        module = module_of(node)
        if isinstance(module.operator, Normalization):
            continue
        sources = node.all_input_nodes
        low, high, partial = extremes(module, [seen[each] for each in sources], [values(each) for each in sources])
        axis = module.operator.channel_axis(low.ndim)
        others = [each for each in range(low.ndim) if each != axis]
        assert bool((low.amin(others) >= module.lowest).all())
        assert bool((high.amax(others) <= module.highest).all())
        assert int(partial.max()) <= module.bound
        num_layers += 1
    return num_layers


@torch.no_grad()
@pytest.mark.parametrize("precision", ["int4", "int8"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("function", WITHOUT_ZERO)
def test_no_accumulator_leaves_its_domain(function, reader, precision):
    model = Written(lambda m, x: READERS[reader](m, WITHOUT_ZERO[function](x)), **PARTS)
    x = torch.randn(3, *SHAPE)
    qat = ready(model, x, precision=precision)
    program = ana_fx.convert(qat)
    assert check_domains(program, x[:1]) > 0
    more = torch.randn(64, *SHAPE) * 3
    assert torch.equal(program(more), qat(more))


@torch.no_grad()
@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
def test_padding_behind_a_table_without_zero_ships_what_was_trained(target, tmp_path):
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    qat = ready(model, torch.randn(8, *SHAPE), precision="int4", target=target)
    program, x = ana_fx.convert(qat), torch.randn(20000, *SHAPE) * 2
    assert torch.equal(program(x), qat(x))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x[:2000]).num_different == 0


@torch.no_grad()
@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
def test_a_transposed_convolution_behind_a_table_without_zero_ships_what_was_trained(target, tmp_path):
    model = nn.Sequential(nn.Hardsigmoid(), nn.ConvTranspose2d(2, 4, 3, stride=2))
    qat = ready(model, torch.rand(8, *SHAPE), target=target)
    program, x = ana_fx.convert(qat), torch.rand(500, *SHAPE)
    assert torch.equal(program(x), qat(x))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


@torch.no_grad()
def test_partial_sums_above_two_to_the_24_are_exact():
    model = Written(lambda m, x: m.linear(x.clamp(0.97, 1)), linear=nn.Linear(20_000, 4))
    qat = ready(model, torch.rand(4, 20_000))
    x = torch.rand(256, 20_000)
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))
