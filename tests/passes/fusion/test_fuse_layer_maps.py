"""Layer maps: which operations belong to one, and what becomes of pads and shared modules."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import LayerMap
from tests.graphs import Written, assert_graph, assert_same_numbers, fused
from tests.models import INPUT_SHAPES, Shared, example

IMAGE = (4, 3, 9, 9)
FLOAT32_ULP = 2.0**-23


def conv(**settings: object) -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, **settings)


def norm() -> nn.BatchNorm2d:
    """A batch norm that does something."""
    made = nn.BatchNorm2d(3)
    for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
        tensor.data.uniform_(0.5, 2)
    return made


class Line(nn.Module):
    """Twice and a quarter, which floats hold exactly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 0.25


def line() -> nn.Module:
    return Line()


def group_norm() -> nn.GroupNorm:
    """A group norm that does something."""
    made = nn.GroupNorm(1, 3)
    for tensor in (made.weight, made.bias):
        tensor.data.uniform_(0.5, 2)
    return made


def only_layer_map(gm: torch.fx.GraphModule) -> LayerMap:
    (found,) = (module for module in gm.modules() if isinstance(module, LayerMap))
    return found


CHAINS = {
    "a convolution alone": ((conv,), "Convolution"),
    "with batch norm": ((conv, norm), "Convolution+norm"),
    "with activation": ((conv, nn.ReLU), "Convolution+relu"),
    "with both": ((conv, norm, nn.ReLU), "Convolution+norm+relu"),
    "ReLU6 clips": ((conv, norm, nn.ReLU6), "Convolution+norm+[0, 6]"),
    "Hardtanh clips": ((conv, lambda: nn.Hardtanh(-2, 3)), "Convolution+[-2, 3]"),
    "two activations meet": ((conv, lambda: nn.Hardtanh(-2, 3), nn.ReLU), "Convolution+[0, 3]"),
    "batch norm behind an activation is its own": (
        (conv, nn.ReLU, norm, nn.ReLU),
        "Convolution+relu -> Identity+norm+relu",
    ),
    "a second batch norm is its own": ((conv, norm, norm), "Convolution+norm -> Identity+norm"),
    "batch norm first": ((norm, conv), "Identity+norm -> Convolution"),
    "batch norm and activation first": ((norm, nn.ReLU, conv), "Identity+norm+relu -> Convolution"),
    "an activation alone": ((nn.ReLU6,), "Identity+[0, 6]"),
    "an average takes both": (
        (lambda: nn.AvgPool2d(2), norm, nn.ReLU),
        "Average+norm+relu",
    ),
    "dropout ends the chain": (
        (conv, lambda: nn.Dropout(0.5), nn.ReLU),
        "Convolution -> Dropout -> Identity+relu",
    ),
    "a line is taken": ((conv, line, nn.ReLU), "Convolution+line+relu"),
    "a line behind an activation is its own": ((conv, nn.ReLU, line), "Convolution+relu -> Identity+line"),
    "a batch norm behind a line is its own": ((conv, line, norm), "Convolution+line -> Identity+norm"),
    "two lines are one": ((line, line), "Identity+line"),
    "a function is a map of its own": ((conv, nn.GELU, nn.ReLU), "Convolution -> TableMap -> Identity+relu"),
    "softmax is a map of its own": ((conv, lambda: nn.Softmax(1), norm), "Convolution -> SoftmaxMap -> Identity+norm"),
    "a transposed convolution takes both": (
        (lambda: nn.ConvTranspose2d(3, 3, 3), norm, nn.ReLU),
        "TransposedConvolution+norm+relu",
    ),
    "upsampling takes both": (
        (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), norm, nn.ReLU),
        "Interpolation+norm+relu",
    ),
    "nearest upsampling is a movement": (
        (conv, lambda: nn.Upsample(scale_factor=2), norm),
        "Convolution -> Upsample -> Identity+norm",
    ),
    "a max pool ends the chain": ((conv, lambda: nn.MaxPool2d(2), norm), "Convolution -> MaxPool2d -> Identity+norm"),
}


@pytest.mark.parametrize(("makers", "wanted"), CHAINS.values(), ids=CHAINS)
def test_a_chain_becomes_layer_maps_with_the_same_bits(makers, wanted):
    model = nn.Sequential(*(make() for make in makers))
    gm = fused(model)
    assert_graph(gm, f"input -> {wanted} -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE) * 5)


NORMS = {
    "a group norm takes its affine and an activation": ((group_norm, nn.ReLU), "Normalization+norm+relu"),
    "an instance norm without affine": ((lambda: nn.InstanceNorm2d(3),), "Normalization"),
    "a batch norm behind a group norm is its own": ((group_norm, norm), "Normalization+norm -> Identity+norm"),
    "a layer norm takes its affine": ((lambda: nn.LayerNorm(9),), "Normalization+norm"),
    "a root mean square norm": ((lambda: nn.RMSNorm(9, elementwise_affine=False),), "Normalization"),
}


@pytest.mark.parametrize(("makers", "wanted"), NORMS.values(), ids=NORMS)
def test_a_norm_becomes_a_layer_map(makers, wanted):
    model = nn.Sequential(*(make() for make in makers)).eval()
    gm, x = fused(model), torch.randn(IMAGE)
    assert_graph(gm, f"input -> {wanted} -> output")
    # rows of at most 243 numbers are summed in another order, and results stay below 2**6
    torch.testing.assert_close(gm.eval()(x), model(x), rtol=0, atol=243 * 2.0**6 * FLOAT32_ULP)


def test_training_mode_gives_the_same_bits_and_statistics():
    model = nn.Sequential(conv(), norm(), nn.ReLU()).train()
    gm, x = fused(model), torch.randn(IMAGE)
    assert torch.equal(gm(x), model(x))
    assert torch.equal(only_layer_map(gm).norm.running_mean, model[1].running_mean)


def test_a_second_reader_ends_the_chain():
    model = Written(lambda m, x: (lambda y: F.relu(y) + y)(m.conv(x)), conv=conv())
    gm = fused(model)
    assert_graph(gm, "x -> Convolution -> Identity+relu -> Sum(Identity+relu, Convolution) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_the_output_is_a_reader():
    model = Written(lambda m, x: (lambda y: (y, F.relu(y)))(m.conv(x)), conv=conv())
    assert_graph(fused(model), "x -> Convolution -> Identity+relu -> output(Convolution, Identity+relu)")


def test_a_sum_takes_batch_norm_and_activation():
    model = Written(lambda m, x: F.relu(m.norm(m.conv(x) + x)), conv=conv(padding=1), norm=norm())
    gm = fused(model)
    assert_graph(gm, "x -> Convolution -> Sum+norm+relu(Convolution, x) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_a_tensor_can_be_added_to_itself():
    model = Written(lambda m, x: (lambda y: y + y)(m.conv(x)), conv=conv())
    gm = fused(model)
    assert_graph(gm, "x -> Convolution -> Sum(Convolution, Convolution) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


PADS = {
    "asymmetric": (lambda: nn.ZeroPad2d((0, 1, 2, 3)), conv, ((2, 3), (0, 1))),
    "on top of the convolution's": (lambda: nn.ZeroPad2d((1, 0, 0, 2)), lambda: conv(padding=(1, 2)), ((1, 3), (3, 2))),
    "on top of same": (lambda: nn.ZeroPad2d(1), lambda: conv(padding="same"), ((2, 2), (2, 2))),
    "on top of valid": (lambda: nn.ConstantPad2d(2, 0.0), lambda: conv(padding="valid"), ((2, 2), (2, 2))),
    "of the last axis": (lambda: nn.ConstantPad1d((1, 2), 0.0), conv, ((0, 0), (1, 2))),
    "none": (nn.Identity, conv, ((0, 0), (0, 0))),
    "same with an even kernel": (nn.Identity, lambda: nn.Conv2d(3, 3, (2, 4), padding="same"), ((0, 1), (1, 2))),
    "same with dilation": (nn.Identity, lambda: conv(padding="same", dilation=(1, 2)), ((1, 1), (2, 2))),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch says so of the float model
@pytest.mark.parametrize(("pad", "convolution", "padding"), PADS.values(), ids=PADS)
def test_pads_are_folded_into_the_convolution(pad, convolution, padding):
    model = nn.Sequential(pad(), convolution())
    gm = fused(model)
    assert_graph(gm, "input -> Convolution -> output")
    assert only_layer_map(gm).operator.padding == padding
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_pads_of_one_and_three_axes_are_folded():
    for model, shape in (
        (nn.Sequential(nn.ConstantPad1d((2, 1), 0.0), nn.Conv1d(3, 3, 3)), (2, 3, 9)),
        (nn.Sequential(nn.ConstantPad3d((1, 0, 0, 1, 2, 0), 0.0), nn.Conv3d(3, 3, 3)), (2, 3, 4, 4, 4)),
    ):
        gm = fused(model)
        assert_graph(gm, "input -> Convolution -> output")
        assert_same_numbers(gm, model, torch.randn(shape))


PAD = nn.ZeroPad2d(1)
PADS_ELSEWHERE = {
    "a pool": (nn.Sequential(PAD, nn.AvgPool2d(2)), "input -> ZeroPad2d -> Average -> output"),
    "a max pool": (
        nn.Sequential(PAD, nn.MaxPool2d(2), conv()),
        "input -> ZeroPad2d -> MaxPool2d -> Convolution -> output",
    ),
    "an activation": (
        nn.Sequential(PAD, nn.ReLU(), conv()),
        "input -> ZeroPad2d -> Identity+relu -> Convolution -> output",
    ),
    "the output": (nn.Sequential(conv(), PAD), "input -> Convolution -> ZeroPad2d -> output"),
    "another pad": (nn.Sequential(nn.ZeroPad2d(2), PAD, conv()), "input -> ZeroPad2d -> Convolution -> output"),
    "two convolutions": (
        Written(lambda m, x: (lambda y: m.a(y) + m.b(y))(m.pad(x)), pad=PAD, a=conv(), b=conv()),
        "x -> ZeroPad2d -> Convolution -> Convolution_2(ZeroPad2d) -> Sum(Convolution, Convolution_2) -> output",
    ),
}


@pytest.mark.parametrize(("model", "wanted"), PADS_ELSEWHERE.values(), ids=PADS_ELSEWHERE)
def test_a_pad_elsewhere_is_a_movement(model, wanted):
    gm = fused(model)
    assert_graph(gm, wanted)
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_a_clip_without_zero_is_a_function():
    model = nn.Sequential(conv(), nn.Hardtanh(1.0, 2.0))
    gm = fused(model)
    assert_graph(gm, "input -> Convolution -> TableMap -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_what_a_negative_pad_crops_is_zeros_to_a_padded_convolution():
    model = nn.Sequential(nn.ZeroPad2d(-1), conv(padding=1))
    assert_same_numbers(fused(model), model, torch.randn(IMAGE))


PAIRS = {
    "a difference": (lambda m, x: F.relu(m.conv(x) - x), "x -> Convolution -> Sum+relu(Convolution, x) -> output"),
    "a product": (lambda m, x: m.norm(m.conv(x) * x), "x -> Convolution -> Product+norm(Convolution, x) -> output"),
    "a matrix product": (
        lambda m, x: m.conv(x) @ x * 2,
        "x -> Convolution -> MatMul+line(Convolution, x) -> output",
    ),
    "a parameter": (
        lambda m, x: m.conv(x) + m.norm.weight[:, None, None],
        "x -> Convolution -> getitem -> ConstantMap -> Sum(Convolution, ConstantMap) -> output",
    ),
    "a mean": (lambda m, x: F.relu(m.conv(x).mean(1)), "x -> Convolution -> Reduce+relu -> output"),
    "a batch norm behind a mean is its own": (
        lambda m, x: m.norm(m.conv(x).mean(2, keepdim=True)),
        "x -> Convolution -> Reduce -> Identity+norm -> output",
    ),
}


@pytest.mark.parametrize(("forward", "wanted"), PAIRS.values(), ids=PAIRS)
def test_an_operation_of_the_forward_becomes_a_layer_map_with_the_same_bits(forward, wanted):
    model = Written(forward, conv=conv(padding=1), norm=norm())
    gm = fused(model)
    assert_graph(gm, wanted)
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_a_shared_module_becomes_a_layer_map_at_each_call():
    gm = fused(Shared())
    assert_graph(
        gm,
        """x -> Convolution+relu -> Convolution+norm+relu -> Convolution+norm+relu_2
        -> Sum(Convolution+relu, Convolution+norm+relu_2) -> MaxPool2d -> Average -> flatten -> Linear -> output""",
    )
    first, second = gm.get_submodule("conv"), gm.get_submodule("conv_1")
    assert first.weight is second.weight
    assert first.norm is second.norm


def test_a_shared_weight_has_one_quantizer_and_each_call_its_own_output_quantizer():
    maps = layer_maps(ana_fx.prepare(Shared(), example(Shared), precision="int4"))
    assert list(maps) == ["stem", "conv", "conv_1", "add", "avg_pool2d", "head"]
    assert maps["conv"].weight_quantizer is maps["conv_1"].weight_quantizer
    assert maps["conv"].output_quantizer is not maps["conv_1"].output_quantizer
    assert maps["stem"].weight_quantizer is not maps["conv"].weight_quantizer


def test_a_shared_convolution_trains_one_weight():
    qat = ana_fx.prepare(Shared(), example(Shared), precision="int4").train()
    ana_fx.Annealer(qat, 10)
    qat(example(Shared)).sum().backward()
    maps = layer_maps(qat)
    assert maps["conv"].weight.grad is maps["conv_1"].weight.grad
    assert sum(parameter is maps["conv"].weight for parameter in qat.parameters()) == 1


def test_a_shared_activation_gets_a_quantizer_at_each_call():
    model = Written(lambda m, x: m.relu(m.b(m.relu(m.a(x)))), a=conv(), b=conv(), relu=nn.ReLU())
    maps = layer_maps(ana_fx.prepare(model, torch.rand(IMAGE)))
    assert list(maps) == ["a", "b"]
    assert maps["a"].output_quantizer is not maps["b"].output_quantizer


def test_an_addition_gets_a_path_beside_the_code_that_adds():
    block = Written(lambda m, x: m.conv(x) + x, conv=conv(padding=1))
    gm = fused(Written(lambda m, x: m.block(x) + x, block=block))
    assert [n.target for n in gm.graph.nodes if n.op == "call_module"] == ["block.conv", "block.add", "add"]


def test_keys_of_the_state_are_paths_of_the_model():
    model = nn.Sequential(conv(), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(147, 2, bias=False))
    keys = set(ana_fx.prepare(model, torch.rand(IMAGE)).state_dict())
    quantizer = {"scale", "mean", "std", "calibrated"}
    assert keys == (
        {"annealing_step", "quantization_settings", "0.weight", "0.bias", "4.weight", "4.anchor"}
        | {f"0.norm.{name}" for name in norm().state_dict()}
        | {f"input_1_quantizer.{name}" for name in quantizer | {"sample_shape"}}
        | {f"{path}.{name}" for path in ("0.weight_quantizer", "0.output_quantizer") for name in quantizer}
        | {f"4.weight_quantizer.{name}" for name in quantizer}
    )


def test_keys_of_the_state_do_not_depend_on_data_or_precision():
    first = ana_fx.prepare(Shared(), example(Shared), precision="int8")
    second = ana_fx.prepare(Shared(), precision="ternary", target="integer", calibration=[example(Shared)])
    assert list(first.state_dict()) == list(second.state_dict())


@pytest.mark.parametrize("kind", INPUT_SHAPES)
def test_the_networks_keep_their_numbers(kind):
    model, x = kind().eval(), example(kind)
    wanted = model(x)
    # averages are summed in another order: at most 64 terms here, each rounded by half an ulp
    torch.testing.assert_close(fused(model)(x), wanted, rtol=64 * FLOAT32_ULP, atol=64 * FLOAT32_ULP)


def test_batch_norm_of_another_axis_than_the_channels_is_not_fused():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    model[1].running_mean.uniform_(-1, 1)
    x = torch.rand(4, 6, 5)  # the batch norm is over the axis of length 6 in the middle
    try:
        qat = ana_fx.prepare(model.eval(), x, calibration=[x], precision="int8")
    except ana_fx.UnsupportedError:
        return
    # 8 bits: within two steps of each quantizer on the way
    torch.testing.assert_close(qat.eval()(x), model(x), rtol=0, atol=0.1)
