"""One spelling for each operation, and all that has none refused at once."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ana_fx
from ana_fx.passes.canonicalize import _SPELLINGS, Canonicalize
from ana_fx.passes.trace import trace
from tests.graphs import Written, WrittenForTwo, assert_graph, assert_same_numbers, canonical, graph_text

Expression = Callable[..., Any]

VECTOR, SEQUENCE, IMAGE, VOLUME = (4, 6), (4, 3, 12), (4, 3, 8, 8), (4, 3, 4, 4, 4)
MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "clip": lambda: nn.Hardtanh(-2.0, 3.0),
    "to_six": lambda: nn.Hardtanh(0.0, 6.0),
    "from_minus_one": lambda: nn.Hardtanh(-1.0, torch.inf),
    "conv1": lambda: nn.Conv1d(3, 6, 3, 2, 1, 1, 3),
    "conv2": lambda: nn.Conv2d(3, 6, (3, 2), (1, 2), (1, 0), (2, 1), 3),
    "bare": lambda: nn.Conv2d(3, 4, 3, padding="same", bias=False),
    "conv3": lambda: nn.Conv3d(3, 4, 2, padding=1),
    "dense": lambda: nn.Linear(6, 5),
    "bias_free": lambda: nn.Linear(6, 5, bias=False),
    "norm": lambda: nn.BatchNorm2d(3, eps=0.5),
    "max1": lambda: nn.MaxPool1d(3, 2, 1),
    "max2": lambda: nn.MaxPool2d((2, 3), 2, (1, 0), 1, ceil_mode=True),
    "max2_default": lambda: nn.MaxPool2d(2),
    "max3": lambda: nn.MaxPool3d(2, dilation=2),
    "avg1": lambda: nn.AvgPool1d(2, 2, 1),
    "avg2": lambda: nn.AvgPool2d((2, 3), 2, 1),
    "avg3": lambda: nn.AvgPool3d(2),
    "adaptive1": lambda: nn.AdaptiveAvgPool1d(4),
    "adaptive2": lambda: nn.AdaptiveAvgPool2d((4, 2)),
    "adaptive3": lambda: nn.AdaptiveAvgPool3d(2),
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "drop": lambda: nn.Dropout(0.3),
    "drop1": lambda: nn.Dropout1d(0.3),
    "drop2": lambda: nn.Dropout2d(0.3),
    "drop3": lambda: nn.Dropout3d(0.3),
    "pad1": lambda: nn.ConstantPad1d((1, 2), 0.0),
    "pad2": lambda: nn.ConstantPad2d((1, 2, 0, 3), 0.0),
    "pad3": lambda: nn.ConstantPad3d(1, 0.0),
}

# shape of the input, spelling with modules, other spellings
SPELLINGS: dict[str, tuple[tuple[int, ...], Expression, dict[str, Expression]]] = {
    "relu": (
        IMAGE,
        lambda m, x: m.relu(x),
        {
            "F.relu": lambda m, x: F.relu(x),
            "F.relu(input=)": lambda m, x: F.relu(input=x),
            "F.relu(inplace)": lambda m, x: F.relu(x, inplace=True),
            "F.relu_": lambda m, x: F.relu_(x),
            "torch.relu": lambda m, x: torch.relu(x),
            "torch.relu_": lambda m, x: torch.relu_(x),
            "x.relu": lambda m, x: x.relu(),
            "x.relu_": lambda m, x: x.relu_(),
            "x.clamp(0)": lambda m, x: x.clamp(0),
            "x.clamp(min=0)": lambda m, x: x.clamp(min=0.0),
            "x.clamp_(0)": lambda m, x: x.clamp_(0),
            "x.clip(0)": lambda m, x: x.clip(0),
            "x.clip_(0)": lambda m, x: x.clip_(0),
            "torch.clamp": lambda m, x: torch.clamp(x, 0.0),
            "torch.clamp(min=, max=None)": lambda m, x: torch.clamp(x, min=0, max=None),
            "torch.clip": lambda m, x: torch.clip(x, min=0),
        },
    ),
    "relu6": (
        IMAGE,
        lambda m, x: m.relu6(x),
        {"F.relu6": lambda m, x: F.relu6(x), "F.relu6(inplace)": lambda m, x: F.relu6(x, inplace=True)},
    ),
    "hardtanh": (
        IMAGE,
        lambda m, x: m.hardtanh(x),
        {"F.hardtanh": lambda m, x: F.hardtanh(x), "F.hardtanh_": lambda m, x: F.hardtanh_(x)},
    ),
    "clip": (
        IMAGE,
        lambda m, x: m.clip(x),
        {
            "F.hardtanh": lambda m, x: F.hardtanh(x, -2.0, 3.0),
            "F.hardtanh(min_val=)": lambda m, x: F.hardtanh(x, min_val=-2.0, max_val=3.0),
            "x.clamp": lambda m, x: x.clamp(-2, 3),
            "torch.clip": lambda m, x: torch.clip(x, min=-2, max=3),
        },
    ),
    "to_six": (IMAGE, lambda m, x: m.to_six(x), {"x.clamp": lambda m, x: x.clamp(0, 6)}),
    "from_minus_one": (IMAGE, lambda m, x: m.from_minus_one(x), {"x.clamp(min=)": lambda m, x: x.clamp(min=-1)}),
    "add": (
        IMAGE,
        lambda m, x: x + m.relu(x),
        {
            "operator.add": lambda m, x: operator.add(x, m.relu(x)),
            "operator.iadd": lambda m, x: operator.iadd(x, m.relu(x)),
            "torch.add": lambda m, x: torch.add(x, m.relu(x)),
            "torch.add(other=)": lambda m, x: torch.add(x, other=m.relu(x)),
            "torch.add(input=)": lambda m, x: torch.add(input=x, other=m.relu(x)),
            "torch.add(alpha=1)": lambda m, x: torch.add(x, m.relu(x), alpha=1),
            "x.add": lambda m, x: x.add(m.relu(x)),
            "x.add_": lambda m, x: x.add_(m.relu(x)),
        },
    ),
    "mean": (
        IMAGE,
        lambda m, x: m.flatten(m.mean(x)),
        {
            "x.mean((2, 3))": lambda m, x: x.mean((2, 3)),
            "x.mean([3, 2])": lambda m, x: x.mean([3, 2]),
            "x.mean((-2, -1))": lambda m, x: x.mean((-2, -1)),
            "x.mean(dim=)": lambda m, x: x.mean(dim=(-1, -2)),
            "torch.mean": lambda m, x: torch.mean(x, (2, 3)),
            "torch.mean(dim=)": lambda m, x: torch.mean(x, dim=(2, 3), keepdim=False),
        },
    ),
    "mean with keepdim": (
        IMAGE,
        lambda m, x: m.mean(x),
        {
            "x.mean(keepdim)": lambda m, x: x.mean((2, 3), keepdim=True),
            "x.mean(, True)": lambda m, x: x.mean((2, 3), True),
            "F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, 1),
        },
    ),
    "conv1": (
        SEQUENCE,
        lambda m, x: m.conv1(x),
        {
            "F.conv1d": lambda m, x: F.conv1d(x, m.conv1.weight, m.conv1.bias, 2, 1, 1, 3),
            "torch.conv1d": lambda m, x: torch.conv1d(x, m.conv1.weight, m.conv1.bias, stride=2, padding=1, groups=3),
        },
    ),
    "conv2": (
        IMAGE,
        lambda m, x: m.conv2(x),
        {
            "F.conv2d": lambda m, x: F.conv2d(x, m.conv2.weight, m.conv2.bias, (1, 2), (1, 0), (2, 1), groups=3),
            "F.conv2d(input=)": lambda m, x: F.conv2d(
                input=x,
                weight=m.conv2.weight,
                bias=m.conv2.bias,
                stride=(1, 2),
                padding=(1, 0),
                dilation=(2, 1),
                groups=3,
            ),
            "torch.conv2d": lambda m, x: torch.conv2d(x, m.conv2.weight, m.conv2.bias, (1, 2), (1, 0), (2, 1), 3),
        },
    ),
    "bare": (
        IMAGE,
        lambda m, x: m.bare(x),
        {
            "F.conv2d": lambda m, x: F.conv2d(x, m.bare.weight, padding="same"),
            "F.conv2d(None)": lambda m, x: F.conv2d(x, m.bare.weight, None, 1, "same"),
        },
    ),
    "conv3": (
        VOLUME,
        lambda m, x: m.conv3(x),
        {
            "F.conv3d": lambda m, x: F.conv3d(x, m.conv3.weight, m.conv3.bias, padding=1),
            "torch.conv3d": lambda m, x: torch.conv3d(x, m.conv3.weight, m.conv3.bias, 1, 1),
        },
    ),
    "dense": (
        VECTOR,
        lambda m, x: m.dense(x),
        {"F.linear": lambda m, x: F.linear(x, m.dense.weight, m.dense.bias)},
    ),
    "bias_free": (VECTOR, lambda m, x: m.bias_free(x), {"F.linear": lambda m, x: F.linear(x, m.bias_free.weight)}),
    "norm": (
        IMAGE,
        lambda m, x: m.norm(x),
        {
            "F.batch_norm": lambda m, x: F.batch_norm(
                x,
                m.norm.running_mean,
                m.norm.running_var,
                m.norm.weight,
                m.norm.bias,
                m.norm.training,
                0.1,
                0.5,
            )
        },
    ),
    "max1": (
        SEQUENCE,
        lambda m, x: m.max1(x),
        {
            "F.max_pool1d": lambda m, x: F.max_pool1d(x, 3, 2, 1),
            "torch.max_pool1d": lambda m, x: torch.max_pool1d(x, 3, 2, 1),
        },
    ),
    "max2": (
        IMAGE,
        lambda m, x: m.max2(x),
        {
            "F.max_pool2d": lambda m, x: F.max_pool2d(x, (2, 3), 2, (1, 0), 1, ceil_mode=True),
            "torch.max_pool2d": lambda m, x: torch.max_pool2d(x, (2, 3), 2, (1, 0), 1, True),
        },
    ),
    "max2_default": (
        IMAGE,
        lambda m, x: m.max2_default(x),
        {
            "F.max_pool2d": lambda m, x: F.max_pool2d(x, 2),
            "F.max_pool2d(kernel_size=)": lambda m, x: F.max_pool2d(x, kernel_size=2, stride=2),
        },
    ),
    "max3": (
        VOLUME,
        lambda m, x: m.max3(x),
        {
            "F.max_pool3d": lambda m, x: F.max_pool3d(x, 2, dilation=2),
            "torch.max_pool3d": lambda m, x: torch.max_pool3d(x, 2, 2, 0, 2),
        },
    ),
    "avg1": (
        SEQUENCE,
        lambda m, x: m.avg1(x),
        {
            "F.avg_pool1d": lambda m, x: F.avg_pool1d(x, 2, 2, 1),
            "torch.avg_pool1d": lambda m, x: torch.avg_pool1d(x, 2, 2, 1),
        },
    ),
    "avg2": (
        IMAGE,
        lambda m, x: m.avg2(x),
        {"F.avg_pool2d": lambda m, x: F.avg_pool2d(x, (2, 3), stride=2, padding=1)},
    ),
    "avg3": (VOLUME, lambda m, x: m.avg3(x), {"F.avg_pool3d": lambda m, x: F.avg_pool3d(x, 2)}),
    "adaptive1": (
        SEQUENCE,
        lambda m, x: m.adaptive1(x),
        {
            "F.adaptive_avg_pool1d": lambda m, x: F.adaptive_avg_pool1d(x, 4),
            "torch.adaptive_avg_pool1d": lambda m, x: torch.adaptive_avg_pool1d(x, 4),
        },
    ),
    "adaptive2": (
        IMAGE,
        lambda m, x: m.adaptive2(x),
        {"F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, output_size=(4, 2))},
    ),
    "adaptive3": (
        VOLUME,
        lambda m, x: m.adaptive3(x),
        {"F.adaptive_avg_pool3d": lambda m, x: F.adaptive_avg_pool3d(x, 2)},
    ),
    "drop": (
        IMAGE,
        lambda m, x: m.drop(x),
        {
            "F.dropout": lambda m, x: F.dropout(x, 0.3, m.training),
            "F.dropout(p=)": lambda m, x: F.dropout(x, p=0.3, training=m.training),
            "torch.dropout": lambda m, x: torch.dropout(x, 0.3, m.training),
        },
    ),
    "drop1": (SEQUENCE, lambda m, x: m.drop1(x), {"F.dropout1d": lambda m, x: F.dropout1d(x, 0.3, m.training)}),
    "drop2": (IMAGE, lambda m, x: m.drop2(x), {"F.dropout2d": lambda m, x: F.dropout2d(x, 0.3, m.training)}),
    "drop3": (VOLUME, lambda m, x: m.drop3(x), {"F.dropout3d": lambda m, x: F.dropout3d(x, 0.3, m.training)}),
    "pad1": (SEQUENCE, lambda m, x: m.pad1(x), {"F.pad": lambda m, x: F.pad(x, (1, 2))}),
    "pad2": (
        IMAGE,
        lambda m, x: m.pad2(x),
        {
            "F.pad": lambda m, x: F.pad(x, [1, 2, 0, 3]),
            "F.pad(mode=)": lambda m, x: F.pad(x, (1, 2, 0, 3), mode="constant", value=0),
        },
    ),
    "pad3": (VOLUME, lambda m, x: m.pad3(x), {"F.pad": lambda m, x: F.pad(x, (1, 1, 1, 1, 1, 1))}),
    "copies": (
        IMAGE,
        lambda m, x: m.relu(x),
        {
            "x.contiguous": lambda m, x: m.relu(x.contiguous()),
            "x.clone": lambda m, x: m.relu(x.clone()),
            "torch.clone": lambda m, x: torch.clone(m.relu(x)),
        },
    ),
}
RESHAPES: dict[str, Expression] = {
    "module": lambda m, x: m.flatten(x),
    "torch.flatten": lambda m, x: torch.flatten(x, 1),
    "torch.flatten(start_dim=)": lambda m, x: torch.flatten(x, start_dim=1),
    "torch.reshape": lambda m, x: torch.reshape(x, (x.size(0), -1)),
    "x.flatten": lambda m, x: x.flatten(1),
    "x.view(size)": lambda m, x: x.view(x.size(0), -1),
    "x.view(shape)": lambda m, x: x.view(x.shape[0], -1),
    "x.view(-1, n)": lambda m, x: x.view(-1, 192),
    "x.reshape": lambda m, x: x.reshape(x.size()[0], x.size(1) * x.size(2) * x.size(3)),
}


def written(expression: Expression) -> Written:
    """A model over the modules that the expression names, with the same numbers each time."""
    torch.manual_seed(0)
    names = [name for name in MODULES if name in expression.__code__.co_names]
    model = Written(expression, **{name: MODULES[name]() for name in names})
    if "norm" in names:
        for tensor in (model.norm.weight, model.norm.bias, model.norm.running_mean, model.norm.running_var):
            tensor.data.uniform_(0.5, 2)
    return model


def in_training(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)  # for dropout
    return model.train()(x)


def refusal(*expressions: Expression, **members: nn.Module) -> str:
    """What is said of a model that returns all these."""
    model = Written(lambda m, x: [expression(m, x) for expression in expressions], **members)
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "modules", "expression"),
    [
        pytest.param(shape, modules, expression, id=f"{name} as {other}")
        for name, (shape, modules, others) in SPELLINGS.items()
        for other, expression in others.items()
    ],
)
def test_every_spelling_gives_the_graph_and_the_bits_of_the_modules(shape, modules, expression):
    gm, model = canonical(written(expression)), written(modules)
    assert_graph(gm, graph_text(canonical(model)))
    x = torch.randn(shape) * 3
    assert_same_numbers(gm, model, x)
    assert torch.equal(in_training(gm, x), in_training(model, x))


@pytest.mark.parametrize("expression", RESHAPES.values(), ids=RESHAPES)
def test_reshapes_stay_as_they_are_and_give_the_same_bits(expression):
    gm, model = canonical(written(expression)), written(lambda m, x: x.flatten(1))
    assert len(graph_text(gm).split(" -> ")) == 3
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_every_operation_that_the_pass_rewrites_is_tested():
    expressions = [each for _, _, others in SPELLINGS.values() for each in others.values()]
    graphs = [trace(written(each)).graph for each in [*expressions, *RESHAPES.values()]]
    tested = {node.target for graph in graphs for node in graph.nodes}
    assert set(_SPELLINGS) - {operator.iadd} <= tested  # torch.fx records `x += y` as an addition


def test_identities_are_dropped():
    assert_graph(canonical(nn.Sequential(nn.Identity(), nn.ReLU(), nn.Identity())), "input -> ReLU -> output")


def test_what_nobody_reads_is_dropped():
    def forward(m, x):
        m.conv(x)
        return m.relu(x)

    gm = canonical(Written(forward, conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU()))
    assert_graph(gm, "x -> ReLU -> output")


def test_a_second_run_changes_nothing():
    gm = canonical(written(lambda m, x: F.relu(m.conv2(x)).mean((2, 3))))
    before = graph_text(gm)
    Canonicalize()(gm)
    assert graph_text(gm) == before


def test_a_functional_in_a_submodule_becomes_a_module_beside_its_caller():
    inner = Written(lambda m, x: F.relu(F.conv2d(x, m.conv.weight)), conv=nn.Conv2d(3, 3, 1))
    gm = canonical(Written(lambda m, x: m.block(x), block=inner))
    assert [node.target for node in gm.graph.nodes if node.op == "call_module"] == ["block.conv2d", "block.relu"]


def test_a_functional_reads_the_very_parameter_of_the_model():
    gm = canonical(
        Written(
            lambda m, x: m.conv(x) + F.conv2d(x, m.conv.weight, m.conv.bias, padding=1),
            conv=nn.Conv2d(3, 3, 3, padding=1),
        )
    )
    first, second = (module for module in gm.modules() if isinstance(module, nn.Conv2d))
    assert first.weight is second.weight
    assert first.bias is second.bias


def test_all_unsupported_operations_are_refused_at_once():
    message = refusal(
        lambda m, x: m.act(x),
        lambda m, x: torch.sigmoid(x),
        lambda m, x: x * 2,
        lambda m, x: x.softmax(1),
        act=nn.GELU(),
    )
    assert message.startswith("4 operation(s) cannot be quantised")
    for key in ("GELU", "sigmoid()", "mul()", "softmax()", "Way out: "):
        assert key in message


def test_an_unsupported_operation_is_named_with_path_and_source_line():
    inner = Written(lambda m, x: torch.sigmoid(x))
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(Written(lambda m, x: m.block(x), block=inner))
    line = inspect.getsourcelines(test_an_unsupported_operation_is_named_with_path_and_source_line)[1] + 1
    assert f"'block', {__file__}:{line}: inner = Written" in str(caught.value)


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
    "reflecting pad": (lambda m, x: F.pad(x, (1, 1), "reflect"), {}, "needed constant zeros"),
    "pad with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), {}, "needed constant zeros"),
    "pad module with ones": (lambda m, x: m.pad(x), {"pad": nn.ConstantPad2d(1, 1.0)}, "needed zeros"),
    "reflection pad module": (
        lambda m, x: m.pad(x),
        {"pad": nn.ReflectionPad2d(1)},
        "ReflectionPad2d is not supported",
    ),
    "ceil average": (
        lambda m, x: m.pool(x),
        {"pool": nn.AvgPool2d(3, ceil_mode=True)},
        "needed windows of one size",
    ),
    "functional ceil average": (lambda m, x: F.avg_pool2d(x, 3, ceil_mode=True), {}, "needed windows of one size"),
    "divisor": (
        lambda m, x: m.pool(x),
        {"pool": nn.AvgPool2d(2, divisor_override=3)},
        "needed the size of the window",
    ),
    "padding that does not count": (
        lambda m, x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
        {},
        "needed count_include_pad=True",
    ),
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
    "clip without zero": (lambda m, x: m.act(x), {"act": nn.Hardtanh(1.0, 2.0)}, "needed a range that holds zero"),
    "clamp without zero": (lambda m, x: x.clamp(1, 2), {}, "needed a range that holds zero"),
    "clamp by a tensor": (lambda m, x: x.clamp(x, None), {}, "needed a constant"),
    "constant operand": (lambda m, x: x + 1.0, {}, "needed two tensors of the graph"),
    "weighted sum": (lambda m, x: torch.add(x, x, alpha=2), {}, "found alpha=2, needed 1"),
    "mean over channels": (lambda m, x: x.mean(1), {}, "needed both image axes"),
    "mean over everything": (lambda m, x: x.mean(), {}, "needed both image axes"),
    "computed weight": (
        lambda m, x: F.conv2d(x, m.conv.weight.flatten(1).view(3, 3, 1, 1)),
        {"conv": nn.Conv2d(3, 3, 1)},
        "needed a parameter of the model",
    ),
    "transposed convolution": (
        lambda m, x: m.conv(x),
        {"conv": nn.ConvTranspose2d(3, 3, 2)},
        "ConvTranspose2d is not supported",
    ),
}


@pytest.mark.parametrize(("expression", "members", "wanted"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_is_refused_for_its_reason(expression, members, wanted):
    assert wanted in refusal(expression, **members)


IN_PLACE: dict[str, Expression] = {
    "module": lambda m, y: m.act(y),
    "x.relu_": lambda m, y: y.relu_(),
    "x.clamp_": lambda m, y: y.clamp_(min=0),
    "x.clip_": lambda m, y: y.clip_(min=0),
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


def test_two_models_inputs_can_be_added():
    assert_graph(canonical(WrittenForTwo(lambda m, x, y: x.add(other=y))), "x -> y -> add(x, y) -> output")


def test_a_parameter_cannot_be_added():
    message = refusal(lambda m, x: x + m.dense.bias, dense=nn.Linear(1, 3))
    assert "add()" in message


def test_a_functional_batch_norm_with_its_own_settings_is_not_taken_for_its_module():
    model = Written(
        lambda m, x: F.batch_norm(m.norm(x), m.norm.running_mean, m.norm.running_var),
        norm=nn.BatchNorm2d(3, eps=0.5),
    )
    try:
        gm = canonical(model)
    except ana_fx.UnsupportedError:
        return
    assert_same_numbers(gm, model, torch.randn(IMAGE))


@pytest.mark.parametrize("pad", [(0, 0, 0, 0, 1, 1), (0, 0, 0, 0, 0, 0, 1, 1), (-1, -1, -1, -1), (-1, 2)])
def test_pads_of_other_axes_and_negative_pads_are_refused(pad):
    channels = 5 if len(pad) == 6 else 3
    model = Written(lambda m, x: m.conv(F.pad(x, pad)), conv=nn.Conv2d(channels, 3, 3))
    with pytest.raises(ana_fx.UnsupportedError, match=r"pad\(\)"):
        ana_fx.prepare(model, torch.rand(IMAGE))
