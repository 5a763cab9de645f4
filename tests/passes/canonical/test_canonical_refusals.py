"""What has no canonical form, refused for its reason, with its place, and all at once.

This covers passes/canonical/canonical_dialect.py: what it does not list is refused.
"""

from __future__ import annotations

import inspect
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from tests.graphs import Written, canonical, graph_text
from tests.spelling import (
    IMAGE,
    Expression,
    refusal,
)

REFUSED: dict[str, tuple[Expression, dict[str, nn.Module], str]] = {
    "batch norm without statistics": (
        lambda m, x: m.norm(x),
        {"norm": nn.BatchNorm2d(3, track_running_stats=False)},
        "needed track_running_stats=True",
    ),
    "functional batch norm without statistics": (
        lambda m, x: F.batch_norm(x, None, None, training=True),
        {},
        "needed batch norm with running statistics",
    ),
    "reflecting convolution": (
        lambda m, x: m.conv(x),
        {"conv": nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")},
        "padding_mode='reflect', needed 'zeros'",
    ),
    "sign": (
        lambda m, x: torch.sign(x),
        {},
        "sign() has no gradient, so that nothing before it would learn; leave it out",
    ),
    "sign method": (lambda m, x: x.sign(), {}, "Precision(activation='bipolar')"),
    "heaviside": (lambda m, x: torch.heaviside(x, torch.ones(())), {}, "Precision(activation='uint1')"),
    "pad with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), {}, "needed zeros"),
    "pad module with ones": (lambda m, x: m.pad(x), {"pad": nn.ConstantPad2d(1, 1.0)}, "needed zeros"),
    "indices": (
        lambda m, x: m.pool(x)[0],
        {"pool": nn.MaxPool2d(2, return_indices=True)},
        "needed return_indices=False",
    ),
    "functional indices": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0],
        {},
        "return",
    ),
    "clamp by a tensor": (lambda m, x: x.clamp(x, None), {}, "needed a constant"),
    "division by a tensor": (lambda m, x: x / x, {}, "needed tensors, or a tensor and a finite number after it"),
    "division of a number": (lambda m, x: 1 / x, {}, "needed tensors, or a tensor and a finite number after it"),
    "division by zero": (lambda m, x: x / 0, {}, "needed tensors, or a tensor and a finite number after it"),
    "division that rounds": (lambda m, x: torch.div(x, 2, rounding_mode="floor"), {}, "found rounding_mode"),
    "matrix product with a number": (lambda m, x: operator.matmul(x, 2), {}, "needed tensors"),
    "mean over everything": (lambda m, x: x.mean(), {}, "needed constant axes other than the batch axis 0"),
    "mean over the batch": (lambda m, x: x.mean((0, 1)), {}, "needed constant axes other than the batch axis 0"),
    "sum as another type": (lambda m, x: x.sum(1, dtype=torch.float64), {}, "needed constant axes"),
    "power of a tensor": (lambda m, x: x**x, {}, "needed a constant"),
    "rows of another norm": (lambda m, x: F.normalize(x, 1, -1), {}, "needed p=2 over the last axis"),
    "unit rows of channels": (lambda m, x: F.normalize(x), {}, "needed p=2 over the last axis"),
    "softmax without an axis": (lambda m, x: F.softmax(x), {}, "needed an axis and float32"),
    "softmax as another type": (lambda m, x: x.softmax(1, dtype=torch.float64), {}, "needed an axis and float32"),
    "cast to integers": (lambda m, x: x.to(torch.int32), {}, "found a cast to torch.int32, needed floats"),
    "view as integers": (lambda m, x: x.view(torch.int32), {}, "found a view as another type, needed a shape"),
    "bicubic": (lambda m, x: F.interpolate(x, (4, 4), mode="bicubic"), {}, "found mode 'bicubic', needed 'nearest'"),
    "bicubic module": (
        lambda m, x: m.up(x),
        {"up": nn.Upsample(2, mode="bicubic")},
        "has mode 'bicubic', needed one of",
    ),
    "smoothed": (
        lambda m, x: F.interpolate(x, (4, 4), mode="bilinear", antialias=True),
        {},
        "found antialias=True, needed False",
    ),
    "layer norm with a weight for each of several axes": (
        lambda m, x: m.norm(x),
        {"norm": nn.LayerNorm((8, 8))},
        "has a weight for each of (8, 8) numbers, needed one normalised axis",
    ),
    "instance norm with statistics": (
        lambda m, x: m.norm(x),
        {"norm": nn.InstanceNorm2d(3, track_running_stats=True)},
        "use a BatchNorm",
    ),
    "adaptive indices": (
        lambda m, x: m.pool(x)[0],
        {"pool": nn.AdaptiveMaxPool2d(2, return_indices=True)},
        "needed return_indices=False",
    ),
    "computed slope": (lambda m, x: F.prelu(x, m.act.weight * 2), {"act": nn.PReLU()}, "needed a parameter"),
    "computed weight": (
        lambda m, x: F.conv2d(x, m.conv.weight.flatten(1).view(3, 3, 1, 1)),
        {"conv": nn.Conv2d(3, 3, 1)},
        "needed a parameter of the model",
    ),
}


@pytest.mark.parametrize(("expression", "members", "wanted"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_is_refused_for_its_reason(expression, members, wanted):
    assert wanted in refusal(expression, **members)


def test_all_unsupported_operations_are_refused_at_once():
    message = refusal(
        lambda m, x: m.act(x),
        lambda m, x: torch.cumsum(x, 1),
        lambda m, x: x / x,
        lambda m, x: x.argmax(1),
        act=nn.GLU(),
    )
    assert message.startswith("4 operation(s) cannot be quantised")
    for key in ("GLU", "cumsum()", "truediv()", "argmax()", "Way out: "):
        assert key in message


def test_an_unsupported_operation_is_named_with_path_and_source_line():
    inner = Written(lambda m, x: torch.cumsum(x, 1))
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(Written(lambda m, x: m.block(x), block=inner))
    line = inspect.getsourcelines(test_an_unsupported_operation_is_named_with_path_and_source_line)[1] + 1
    assert f"'block', {__file__}:{line}: inner = Written" in str(caught.value)


def test_a_pad_of_the_batch_is_refused():
    model = Written(lambda m, x: m.conv(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))), conv=nn.Conv2d(3, 3, 3))
    x = torch.rand(IMAGE)
    with pytest.raises(ana_fx.AnaFxError):
        ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]))


@pytest.mark.parametrize("name", ["chunk", "split", "unbind", "tensor_split"])
def test_parts_that_are_returned_as_a_whole_are_refused(name):
    arguments = () if name == "unbind" else (2,)
    with pytest.raises(ana_fx.UnsupportedError, match=rf"{name}\(\) is returned as a whole, needed its parts"):
        canonical(Written(lambda m, x: getattr(x, name)(*arguments)))


IN_PLACE: dict[str, Expression] = {
    "module": lambda m, y: m.act(y),
    "x.relu_": lambda m, y: y.relu_(),
    "x.clamp_": lambda m, y: y.clamp_(min=0),
    "x.clip_": lambda m, y: y.clip_(min=0),
    "x.mul_": lambda m, y: y.mul_(2),
    "x.sub_": lambda m, y: y.sub_(1),
    "x.div_": lambda m, y: y.div_(2),
    "x.sigmoid_": lambda m, y: y.sigmoid_(),
    "x.tanh_": lambda m, y: y.tanh_(),
    "F.elu_": lambda m, y: F.elu_(y),
    "F.celu_": lambda m, y: F.celu_(y),
    "F.selu_": lambda m, y: F.selu_(y),
    "F.leaky_relu_": lambda m, y: F.leaky_relu_(y),
    "F.silu(inplace)": lambda m, y: F.silu(y, inplace=True),
    "x.add_": lambda m, y: y.add_(m.conv(y)),
    "F.relu_": lambda m, y: F.relu_(y),
    "torch.relu_": lambda m, y: torch.relu_(y),
    "F.hardtanh_": lambda m, y: F.hardtanh_(y),
    "F.relu(inplace)": lambda m, y: F.relu(y, inplace=True),
    "F.relu6(inplace)": lambda m, y: F.relu6(y, inplace=True),
    "F.hardtanh(inplace)": lambda m, y: F.hardtanh(y, inplace=True),
    "F.dropout(inplace)": lambda m, y: F.dropout(y, inplace=True),
}


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_is_refused_if_the_tensor_is_used_later(expression):
    def forward(m, x):
        y = m.conv(x)
        return expression(m, y) + y

    message = refusal(forward, conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True))
    assert "works in place on a tensor that is used again later" in message


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_is_taken_if_the_tensor_is_not_used_later(expression):
    model = Written(lambda m, x: expression(m, m.conv(x)), conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True))
    assert graph_text(canonical(model)).startswith("x -> Conv2d -> ")


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_never_changes_numbers_silently(expression):
    def forward(m, x):
        y = m.conv(x)
        flat = y.view(y.size(0), -1)
        return expression(m, y).flatten(1) + flat

    model = Written(forward, conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True)).eval()
    with pytest.raises(ana_fx.AnaFxError):
        ana_fx.prepare(model, torch.randn(2, 3, 4, 4))
