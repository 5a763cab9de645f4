"""Quantizers: their types, their first scales, and the head-room of what they feed.

This covers passes/quantization/choose_types.py too.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.quantizers import Quantizer
from tests.graphs import Written, WrittenForTwo, assert_graph
from tests.models import Chain, OneDimensional, Residual, Volume, example

IMAGES = torch.linspace(0, 1, 8 * 3 * 6 * 6).reshape(8, 3, 6, 6)


def small(*, with_norm: bool = False) -> nn.Sequential:
    """conv -> relu -> linear head."""
    norm = [nn.BatchNorm2d(4)] if with_norm else []
    return nn.Sequential(nn.Conv2d(3, 4, 3), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def types(qat: GraphModule) -> dict[str, tuple[str, str]]:
    """Of each layer map, the types of weight and output."""
    return {
        path: (_type(each.weight_quantizer), _type(each.output_quantizer)) for path, each in layer_maps(qat).items()
    }


def _type(quantizer: Quantizer | None) -> str:
    return "-" if quantizer is None else str(quantizer.integer_type)


def input_quantizer(qat: GraphModule) -> InputQuantizer:
    (found,) = (module for module in qat.modules() if isinstance(module, InputQuantizer))
    return found


def output_of(qat: GraphModule, path: str = "0") -> Quantizer:
    quantizer = layer_maps(qat)[path].output_quantizer
    assert quantizer is not None
    return quantizer


def squared_error(x: Tensor, scale: float, lo: int, hi: int) -> float:
    return float((x - scale * torch.round(x / scale).clamp(lo, hi)).square().mean())


def assert_near_least_squares(quantizer: Quantizer, x: Tensor) -> None:
    """No step on a fine grid has a squared error that is smaller by more than a tenth."""
    lo, hi = (int(limit) for limit in quantizer.levels()[:2])
    grid = torch.linspace(0.01, 2, 1000) * float(x.abs().max()) / hi
    best = min(squared_error(x, float(scale), lo, hi) for scale in grid)
    assert squared_error(x, quantizer.scale.item(), lo, hi) <= best * 1.1


def test_scales_are_edges_of_the_graph():
    qat = ana_fx.prepare(small(), IMAGES)
    assert_graph(qat, "input -> InputQuantizer -> Convolution+relu -> Flatten -> Linear -> output")
    scales = [node.target for node in qat.graph.nodes if node.op == "get_attr"]
    assert scales == ["input_1_quantizer.scale", "0.output_quantizer.scale"]


@pytest.mark.parametrize(
    ("preset", "weight", "relu", "linear"),
    [
        ("ternary", "ternary", "uint2", "int2"),
        ("all-ternary", "ternary", "ternary", "ternary"),
        *((f"int{bits}", f"int{bits}", f"uint{bits}", f"int{bits}") for bits in range(2, 8)),
        ("int8", "int8 within ±63", "uint8", "int8"),
    ],
)
def test_a_preset_gives_its_types(preset, weight, relu, linear):
    qat = ana_fx.prepare(Residual(), example(Residual), precision=preset)
    found = types(qat)
    assert found["stem.0"] == (weight, relu)
    assert found["blocks.0.conv2"] == (weight, linear)  # no activation: the signed sibling
    assert found["blocks.0.add"] == ("-", relu)
    assert found["mean"] == ("-", relu)  # of what is never negative
    assert found["head"] == (weight, "-")


def test_the_average_of_signed_numbers_is_signed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    assert types(ana_fx.prepare(model, IMAGES, precision="int4"))["1"] == ("-", "int4")


def test_eight_bit_weights_are_symmetric():
    quantizer = layer_maps(ana_fx.prepare(small(), IMAGES, target="onnxruntime-vnni"))["0"].weight_quantizer
    assert (quantizer.integer_type.qmin, quantizer.integer_type.qmax) == (-127, 127)


def test_a_ternary_activation_replaces_the_relu_and_a_signed_one_keeps_it():
    replaced = ana_fx.prepare(small(), IMAGES, precision="all-ternary", calibration=[IMAGES])
    kept = ana_fx.prepare(small(), IMAGES, precision=ana_fx.Precision("int4", "int4"), calibration=[IMAGES])
    assert output_of(replaced).levels()[:2] == (-1, 1)
    assert output_of(kept).levels()[:2] == (0, 7)


@pytest.mark.parametrize(
    ("wanted", "inputs", "found"),
    [
        ("auto", IMAGES, "uint8"),
        ("auto", IMAGES - 0.5, "int8"),
        ("auto", None, "int8"),
        ("uint8", IMAGES - 0.5, "uint8"),
        ("int8", IMAGES, "int8"),
        ("uint4", IMAGES, "uint4"),
        (ana_fx.IntegerType(bits=6, signed=True), None, "int6"),
    ],
)
def test_the_input_has_the_type_that_is_asked_for_or_the_sign_of_its_examples(wanted, inputs, found):
    precision = ana_fx.Precision("int4", "uint4", input=wanted)
    assert _type(input_quantizer(ana_fx.prepare(small(), inputs, precision=precision))) == found


@pytest.mark.parametrize(("shift", "found"), [(0.0, "uint8"), (0.5, "int8")])
def test_calibration_tells_the_sign_of_the_input_too(shift, found):
    qat = ana_fx.prepare(small(), calibration=[IMAGES, IMAGES - shift])
    assert _type(input_quantizer(qat)) == found


def test_each_input_has_its_own_type():
    model = WrittenForTwo(lambda m, x, y: m.conv(x) + y, conv=nn.Conv2d(3, 3, 1))
    qat = ana_fx.prepare(model, (IMAGES - 0.5, IMAGES))
    found = [_type(module) for module in qat.modules() if isinstance(module, InputQuantizer)]
    assert found == ["int8", "uint8"]


def conv_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize(
    ("make", "output", "head"),
    [
        (small, "auto", "-"),  # int32: raw accumulators
        (small, "int32", "-"),
        (small, "int8", "int8"),
        (conv_head, "auto", "int8"),
        (conv_head, "int32", "-"),
        (conv_head, "int8", "int8"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "auto", "uint8"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), "auto", "int8"),
    ],
)
def test_the_output_has_the_type_that_is_asked_for(make, output, head):
    qat = ana_fx.prepare(make(), IMAGES, precision=ana_fx.Precision("int4", "uint4", output=output))
    assert list(types(qat).values())[-1][1] == head


def test_a_linear_head_gives_int32_logits_of_one_scale():
    head = list(layer_maps(ana_fx.prepare(small(), IMAGES)).values())[-1]
    assert head.output_quantizer is None
    assert head.weight_quantizer.scale.shape == ()


def test_other_weights_have_a_scale_for_each_output_channel():
    qat = ana_fx.prepare(OneDimensional(), example(OneDimensional))
    shapes = {
        path: tuple(m.weight_quantizer.scale.shape) for path, m in layer_maps(qat).items() if m.weight is not None
    }
    assert shapes == {"conv1": (8, 1, 1), "conv2": (8, 1, 1), "head": (5, 1, 1)}


def test_a_float_output_leaves_the_last_layer_as_it_is():
    qat = ana_fx.prepare(small(), IMAGES, precision=ana_fx.Precision("int4", "uint4", output="float"))
    head = qat.get_submodule("3")
    assert not head.is_quantized
    x = torch.rand(2, 64)
    assert torch.equal(head(x), nn.functional.linear(x, head.weight, head.bias))


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))],
    ids=["activation", "batch norm"],
)
def test_int32_logits_of_a_layer_with_more_than_a_bias_are_refused(model):
    with pytest.raises(ana_fx.PrecisionError, match=r"module '0'.*output='int32'.*bare linear.*use output='int8'"):
        ana_fx.prepare(model, torch.rand(2, 4), precision=ana_fx.Precision(output="int32"))


def test_overrides_go_by_pattern_and_the_last_one_wins():
    overrides = {
        "*": "int6",
        "blocks.*": "int2",
        "blocks.1.conv?": "int3",
        "*add": ana_fx.Precision(activation="uint5"),
    }
    precision = ana_fx.Precision("int8", "uint8", overrides=overrides)
    found = types(ana_fx.prepare(Residual(), example(Residual), precision=precision))
    assert found == {
        "stem.0": ("int6", "uint6"),
        "blocks.0.conv1": ("int2", "uint2"),
        "blocks.0.conv2": ("int2", "int2"),
        "blocks.0.add": ("-", "uint5"),
        "blocks.1.conv1": ("int3", "uint3"),
        "blocks.1.conv2": ("int3", "int3"),
        "blocks.1.skip.0": ("int2", "int2"),
        "blocks.1.add": ("-", "uint5"),
        "mean": ("-", "uint6"),
        "head": ("int6", "-"),
    }


def test_rounding_can_be_overridden_too():
    floor = ana_fx.Precision("int4", "uint4", rounding="floor")
    qat = ana_fx.prepare(Residual(), example(Residual), precision=ana_fx.Precision(overrides={"blocks.0*": floor}))
    found = {path for path, each in layer_maps(qat).items() for q in each.quantizers() if q.rounding == "floor"}
    assert found == {"blocks.0.conv1", "blocks.0.conv2", "blocks.0.add"}


def test_weight_scales_have_the_least_squared_error_in_each_channel():
    qat = ana_fx.prepare(small(), IMAGES, precision="ternary")
    quantizer, weight = layer_maps(qat)["0"].weight_quantizer, layer_maps(qat)["0"].weight.detach()
    for channel, scale in zip(weight, quantizer.scale.flatten().tolist(), strict=True):
        best = min(squared_error(channel, float(s), -1, 1) for s in torch.linspace(0.001, 0.5, 1000))
        assert squared_error(channel, scale, -1, 1) <= best * 1.02


@pytest.mark.parametrize("preset", ["ternary", "int4", "int8"])
def test_a_batch_norm_tells_the_scale_without_data(preset):
    model = small(with_norm=True)
    nn.init.constant_(model[1].weight, 3.0)
    quantizer = output_of(ana_fx.prepare(model, precision=preset))
    assert quantizer.is_calibrated
    quantiles = torch.special.ndtri((torch.arange(2**14) + 0.5) / 2**14)
    assert_near_least_squares(quantizer, (quantiles * 3).relu())


def test_calibration_goes_before_a_batch_norm():
    """Which knows neither other data nor how long the tails are."""
    model = small(with_norm=True).eval()
    model[1].num_batches_tracked.fill_(1)  # it was trained
    given = ana_fx.prepare(model, calibration=[IMAGES * 100])
    assert_near_least_squares(output_of(given), model[:3](IMAGES * 100).detach())


def test_a_batch_norm_that_starts_at_zero_is_taken_as_a_standard_one():
    zero, standard = small(with_norm=True), small(with_norm=True)
    nn.init.zeros_(zero[1].weight)
    scales = [output_of(ana_fx.prepare(model)).scale for model in (zero, standard)]
    assert torch.equal(*scales)


@pytest.mark.parametrize("preset", ["ternary", "int4", "int8"])
def test_calibration_tells_the_scales_that_no_batch_norm_does(preset):
    model = small()
    qat = ana_fx.prepare(model, precision=preset, calibration=[IMAGES])
    assert_near_least_squares(output_of(qat), model[:2](IMAGES).detach())
    assert_near_least_squares(input_quantizer(qat), IMAGES)


def test_without_batch_norm_or_calibration_the_first_training_batch_tells():
    qat, seen = ana_fx.prepare(small(), IMAGES, precision="int4").train(), []
    quantizer = output_of(qat)
    quantizer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().relu()))
    assert not quantizer.is_calibrated
    qat(IMAGES)
    scale = quantizer.scale.clone()
    assert_near_least_squares(quantizer, seen[0])
    qat(IMAGES * 10)
    assert torch.equal(quantizer.scale, scale)


def test_eval_mode_before_any_scale_is_known_is_refused():
    qat = ana_fx.prepare(small(), IMAGES).eval()
    with pytest.raises(ana_fx.CalibrationError, match=r"scale of the model input .*is not known.*calibration=batches"):
        qat(IMAGES)


LABELS = torch.zeros(8)
BATCHES: dict[str, Callable[[], Iterable[Any]]] = {
    "tensors": lambda: [IMAGES[:4], IMAGES[4:]],
    "tuples with labels": lambda: [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])],
    "lists with labels": lambda: [[IMAGES[:4], LABELS[:4]], [IMAGES[4:], LABELS[4:]]],
    "a generator": lambda: (IMAGES[start : start + 4] for start in (0, 4)),
    "a loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4),
}


@pytest.mark.parametrize("batches", BATCHES.values(), ids=BATCHES)
def test_every_form_of_calibration_gives_the_same_scales(batches):
    model = small()
    wanted = ana_fx.prepare(model, calibration=BATCHES["tensors"]()).state_dict()
    found = ana_fx.prepare(model, calibration=batches()).state_dict()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_calibration_is_quiet(capfd):
    ana_fx.prepare(small(), calibration=[IMAGES])
    assert capfd.readouterr() == ("", "")


def test_calibration_leaves_the_mode_and_the_statistics_alone():
    model = small(with_norm=True).train()
    qat = ana_fx.prepare(model, calibration=[IMAGES])
    assert all(module.training for module in qat.modules())
    assert torch.equal(layer_maps(qat)["0"].norm.running_mean, torch.zeros(4))


WRONG_CALIBRATION = {
    "wrong shape": ([IMAGES, torch.rand(8, 1, 6, 6)], r"calibration batch 1 .*\(8, 1, 6, 6\).*module '0'.*needed"),
    "too small": ([torch.rand(8, 3, 2, 2)], r"calibration batch 0 .*\(8, 3, 2, 2\).*module '0'.*needed"),
    "NaN": ([IMAGES, IMAGES / 0], "calibration batch 1 holds NaN or infinite numbers; needed finite"),
    "no batch": ([], "calibration holds no batch; needed at least one, or calibration=None"),
    "a generator at its end": (iter(()), "calibration holds no batch"),
    "another type": ([IMAGES.to(torch.uint8)], "calibration batch 0"),
}


@pytest.mark.parametrize(("calibration", "message"), WRONG_CALIBRATION.values(), ids=WRONG_CALIBRATION)
def test_calibration_that_does_not_fit_is_refused(calibration, message):
    with pytest.raises(ana_fx.CalibrationError, match=message):
        ana_fx.prepare(small(), IMAGES, calibration=calibration)


def test_example_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ana_fx.CalibrationError, match=r"example_inputs with shape\(s\) \(8, 3, 7, 6\).*module '3'"):
        ana_fx.prepare(small(), torch.rand(8, 3, 7, 6))
    with pytest.raises(ana_fx.CalibrationError, match="example_inputs holds NaN"):
        ana_fx.prepare(small(), IMAGES * torch.nan)


WIDTHS = ["ternary", "int2", "int3", "int4", "int5", "int6", "int7", "int8"]


def largest_odd_factor(*limits: float) -> int:
    return max([1, *(factor for factor in range(1, 128, 2) if all(factor <= limit for limit in limits))])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("given", "stored"), [("uint8", 255), ("int8", 255), ("uint2", 3), ("int2", 129)])
def test_weights_are_stored_as_large_as_bytes_and_pairs_of_products_allow(width, given, stored):
    """A pair of products, 2·x·w, stays inside 16 bits for all weights but those of eight bits."""
    precision = ana_fx.Precision(width, "uint4", input=given)
    layer_map = layer_maps(ana_fx.prepare(small(), IMAGES, precision=precision))["0"]
    magnitude = ana_fx.IntegerType.parse(width).magnitude - (width == "int8")
    assert layer_map.factor == largest_odd_factor(127 / magnitude, 32767 / (2 * stored * magnitude))
    assert width == "int8" or 2 * stored * magnitude * layer_map.factor <= 32767


@pytest.mark.parametrize("width", WIDTHS)
def test_the_integer_target_stores_heads_as_large_as_bytes_allow(width):
    qat = ana_fx.prepare(small(), IMAGES, precision=ana_fx.Precision(width, "uint2"), target="integer")
    magnitude = ana_fx.IntegerType.parse(width).magnitude - (width == "int8")
    assert layer_maps(qat)["3"].factor == largest_odd_factor(127 / magnitude)


@pytest.mark.parametrize(("features", "factor"), [(64, 63), (512, 31), (4096, 3), (30_000, 1)])
def test_logits_stay_where_float32_tells_all_integers_apart(features, factor):
    qat = ana_fx.prepare(nn.Sequential(nn.Linear(features, 2)), torch.rand(2, features), precision="ternary")
    head = layer_maps(qat)["0"]
    assert head.factor == factor
    assert factor == 1 or features * 255 * factor <= 2**22


def test_accumulators_stay_inside_32_bits_with_room_for_the_bias():
    model = nn.Sequential(nn.Linear(200_000, 2), nn.ReLU(), nn.Linear(2, 2))
    layer_map = layer_maps(ana_fx.prepare(model, torch.rand(2, 200_000), precision="ternary"))["0"]
    assert layer_map.factor == 9  # 200,000 · 255 · 9 <= 2**29 < 200,000 · 255 · 11
    assert 200_000 * 255 * layer_map.factor <= 2**29


@pytest.mark.parametrize("kind", [Chain, Residual, Volume])
def test_the_shape_of_a_sample_is_remembered(kind):
    qat = ana_fx.prepare(kind(), example(kind, 5))
    assert input_quantizer(qat).shape == tuple(example(kind).shape[1:])
    fresh = ana_fx.prepare(kind(), precision=ana_fx.Precision(input="uint8"))
    fresh.load_state_dict(qat.state_dict())
    assert input_quantizer(fresh).shape == tuple(example(kind).shape[1:])


@pytest.mark.parametrize("learn", [False, True])
def test_a_scale_that_is_not_learned_gets_no_gradient_and_no_optimiser_moves_it(learn):
    qat = ana_fx.prepare(small(), IMAGES, schedule=ana_fx.Schedule(learn_scales=learn), calibration=[IMAGES])
    scales = {name: p for name, p in qat.named_parameters() if name.startswith("0.") and name.endswith("scale")}
    before = {name: p.detach().clone() for name, p in scales.items()}
    optimizer = torch.optim.AdamW(qat.parameters(), lr=0.1, weight_decay=0.1)
    ana_fx.Annealer(qat, 10)
    qat(IMAGES).square().sum().backward()
    optimizer.step()
    assert set(scales) == {"0.weight_quantizer.scale", "0.output_quantizer.scale"}
    for name, scale in scales.items():
        assert (scale.grad is not None) is learn
        assert torch.equal(scale, before[name]) is not learn


def test_an_input_with_a_default_that_the_model_ignores_needs_no_example():
    class Ignores(Written):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.conv(x)

    qat = ana_fx.prepare(Ignores(lambda m, x: x, conv=nn.Conv2d(3, 2, 1)), IMAGES).train()
    assert qat(IMAGES).shape == (8, 2, 6, 6)
