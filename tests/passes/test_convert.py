"""Conversion: integers between the borders, the same bits, proofs, and what is refused."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import module_of
from ana_fx.passes.lowering.recording import run
from ana_fx.program.integer_layers import IntegerHead, IntegerMap
from ana_fx.program.program_borders import Dequantize, Quantize
from tests.graphs import Written, assert_graph
from tests.models import INPUT_SHAPES, Chain, Residual, Shared, example
from tests.programs import calibrated, converted, trained

NETWORKS = list(INPUT_SHAPES)
IMAGES = torch.linspace(0, 1, 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)


def integer_maps(program: GraphModule) -> Iterator[IntegerMap]:
    return (module for module in program.modules() if isinstance(module, IntegerMap))


def test_the_program_has_explicit_borders():
    assert_graph(
        converted(Chain),
        """x -> Quantize -> IntegerMap -> IntegerMaxPool -> IntegerMap_2 -> IntegerMaxPool_2 -> Reshape
        -> IntegerMap_3 -> IntegerHead -> Dequantize -> output""",
    )


def test_a_residual_keeps_its_shape():
    block = Written(lambda m, x: F.relu(m.conv(x) + x), conv=nn.Conv2d(3, 3, 3, padding=1))
    program = ana_fx.convert(calibrated(block, IMAGES))
    assert_graph(program, "x -> Quantize -> IntegerMap -> IntegerMap_2(IntegerMap, Quantize) -> Dequantize -> output")


@pytest.mark.parametrize("precision", ["ternary", "int8"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_there_are_only_integers_between_the_borders(kind, precision):
    program = converted(kind, precision)
    for node, tensor in run(program, (example(kind, 2),)).items():
        is_outside = node.op in ("placeholder", "output") or isinstance(module_of(node), Dequantize)
        assert tensor.is_floating_point() is is_outside, node
    for name, buffer in program.named_buffers():
        assert not buffer.is_floating_point() or isinstance(
            program.get_submodule(name.rpartition(".")[0]), (Quantize, Dequantize)
        )


def test_a_float_last_layer_reads_behind_a_border():
    x, precision = example(Chain), ana_fx.Precision("int4", "uint4", output="float")
    qat = calibrated(Chain(), x, precision=precision)
    program = ana_fx.convert(qat)
    assert_graph(
        program,
        """x -> Quantize -> IntegerMap -> IntegerMaxPool -> IntegerMap_2 -> IntegerMaxPool_2 -> Reshape
        -> IntegerMap_3 -> Dequantize -> Linear -> output""",
    )
    assert torch.equal(program(x), qat(x))


@torch.no_grad()
@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize("awkward", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_program_gives_the_bits_of_eval_mode(kind, awkward, target):
    program = converted(kind, awkward=awkward, target=target)
    x = example(kind, 32, signed=awkward)
    wanted = trained(kind, awkward=awkward, target=target)(x)
    assert torch.equal(program(x), wanted)
    assert torch.equal(torch.cat([program(x[:1]), program(x[1:8]), program(x[8:])]), wanted)


@torch.no_grad()
def test_inputs_outside_the_range_saturate_alike():
    x = torch.randn(8, *INPUT_SHAPES[Residual]) * 1000
    assert torch.equal(converted(Residual)(x), trained(Residual)(x))


@torch.no_grad()
def test_every_structure_of_outputs_is_kept():
    model = Written(
        lambda m, x: {"b": m.b(x), "a": (m.a(x), m.a(x) + m.b(x))}, a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 2, 1)
    )
    qat = calibrated(model, IMAGES)
    wanted, found = qat(IMAGES), ana_fx.convert(qat)(IMAGES)
    assert list(found) == ["b", "a"]
    for first, second in zip((wanted["b"], *wanted["a"]), (found["b"], *found["a"]), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("is_training", [False, True])
def test_the_trained_model_is_not_touched(is_training):
    qat = copy.deepcopy(trained(Residual)).train(is_training)
    state, text = copy.deepcopy(qat.state_dict()), str(qat.graph)
    meta = {node.name: set(node.meta) for node in qat.graph.nodes}
    ana_fx.convert(qat)
    assert all(torch.equal(state[key], value) for key, value in qat.state_dict().items())
    assert str(qat.graph) == text
    assert {node.name: set(node.meta) for node in qat.graph.nodes} == meta
    assert all(module.training is is_training for module in qat.modules())


def test_the_program_does_not_change_when_training_goes_on():
    qat, x = copy.deepcopy(trained(Chain)), example(Chain)
    program = ana_fx.convert(qat)
    before = program(x)
    with torch.no_grad():
        for tensor in [*qat.parameters(), *qat.buffers()]:
            tensor.copy_(torch.rand(tensor.shape) * 4)
    assert torch.equal(program(x), before)


def test_conversion_is_repeatable():
    first, second = converted(Shared).state_dict(), ana_fx.convert(trained(Shared)).state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("precision", ["ternary", "int2", "int8"])
def test_weights_are_stored_as_int8(precision):
    program = converted(Chain, precision)
    weights = [m.weight for m in program.modules() if isinstance(m, (IntegerMap, IntegerHead)) and m.weight is not None]
    largest = {"ternary": 1, "int2": 2, "int8": 127}[precision]
    assert {weight.dtype for weight in weights} == {torch.int8}
    assert max(int(weight.to(torch.int32).abs().max()) for weight in weights) <= largest


def normalised(gains: list[float]) -> nn.Sequential:
    """A linear layer whose batch norm has these gains, and a head."""
    norm = nn.BatchNorm1d(len(gains))
    norm.weight.data = torch.tensor(gains)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(nn.Linear(6, len(gains)), norm, nn.ReLU(), nn.Linear(len(gains), 2))


def test_a_negative_gain_flips_the_weights_of_its_channel():
    plain, flipped = normalised([1.0, 1.0]), normalised([1.0, -1.0])
    flipped[0].load_state_dict(plain[0].state_dict())
    x = torch.rand(16, 6)
    first, second = (next(integer_maps(ana_fx.convert(calibrated(model, x)))).weight for model in (plain, flipped))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], -second[1])


@pytest.mark.parametrize("gain", [0.0, 1e-12, -1e-12])
def test_a_gain_of_nearly_zero_is_a_constant(gain):
    qat = calibrated(normalised([1.0, gain]), torch.rand(16, 6))
    program, x = ana_fx.convert(qat), torch.rand(64, 6)
    (first, _) = (node for node in program.graph.nodes if isinstance(module_of(node), IntegerMap | IntegerHead))
    assert len(run(program, (x,))[first][:, 1].unique()) == 1
    assert torch.equal(program(x), qat(x))


@pytest.mark.parametrize("gain", [1e6, -1e6])
def test_a_huge_gain_is_a_step(gain):
    qat = calibrated(normalised([1.0, gain]), torch.rand(16, 6))
    x = torch.rand(64, 6)
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


def test_accumulator_bounds_are_reached_by_a_worst_case_and_never_exceeded():
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    qat = calibrated(model, torch.rand(16, 5) - 0.5, precision=ana_fx.Precision("int3", "uint4", input="int2"))
    integer_map = next(integer_maps(ana_fx.convert(qat)))
    corners = torch.tensor(list(itertools.product((-2, -1, 0, 1), repeat=5)))
    accumulators = corners @ integer_map.weight.to(torch.int64).T
    assert torch.equal(accumulators.amin(0), integer_map.lowest)
    assert torch.equal(accumulators.amax(0), integer_map.highest)
    assert integer_map.bound == int(accumulators.abs().max())


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_accumulator_leaves_its_bound(kind):
    program = copy.deepcopy(converted(kind, "int8"))
    sizes = [check_bound(integer_map) for integer_map in integer_maps(program)]
    program(torch.cat([example(kind), example(kind) * 1e6, example(kind, signed=True) * 1e6]))
    assert all(sizes)


def check_bound(integer_map: IntegerMap) -> list[int]:
    """From now on the map checks its accumulators; the largest of each call are listed."""
    accumulate, sizes = integer_map.accumulate, []

    def checked(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        accumulator = accumulate(inputs)
        sizes.append(int(accumulator.abs().max()))
        assert sizes[-1] <= integer_map.bound
        return accumulator

    integer_map.accumulate = checked
    return sizes


def test_annealing_ranges_travel_with_the_program():
    assert converted(Residual).meta["annealing_ranges"] == ana_fx.annealing_ranges(trained(Residual))


# what is refused


def test_a_model_that_was_not_prepared_is_refused():
    with pytest.raises(
        ValueError, match=r"needs a model from ana_fx\.prepare, got ReLU, a model that was not prepared"
    ):
        ana_fx.convert(torch.fx.symbolic_trace(nn.ReLU()))


def test_a_program_that_was_converted_already_is_refused():
    with pytest.raises(
        ValueError, match=r"needs a model from ana_fx\.prepare, got GraphModule, a program that was converted"
    ):
        ana_fx.convert(converted(Chain))


def test_an_accumulator_that_cannot_fit_is_refused():
    model = nn.Sequential(nn.Linear(700_000, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(ana_fx.AccumulatorError) as caught:
        ana_fx.convert(calibrated(model, torch.rand(2, 700_000)))
    for key in ("module '0'", "accumulator of channel", "needed at most 2147483647 (32 bits)", "fewer bits"):
        assert key in str(caught.value)


def test_all_accumulators_that_cannot_fit_are_refused_at_once():
    model = Written(lambda m, x: m.a(x) + m.b(x), a=nn.Linear(700_000, 1), b=nn.Linear(700_000, 1))
    with pytest.raises(ana_fx.AccumulatorError, match=r"(?s)module 'a'.*module 'b'"):
        ana_fx.convert(calibrated(model, torch.rand(2, 700_000)))


@pytest.mark.parametrize("mean", [nn.AdaptiveAvgPool2d(1), Written(lambda m, x: x.mean((2, 3), keepdim=True))])
def test_a_mean_over_a_large_image_takes_less_headroom(mean, tmp_path):
    x = torch.rand(1, 2, 600, 600)  # 127-fold ones times 255 would be 11.7 times 10⁹
    qat = ana_fx.prepare(mean, x, calibration=[x])
    program = ana_fx.convert(qat)
    assert torch.equal(program(x), qat.eval()(x))
    ana_fx.export(program, tmp_path / "mean.onnx")
    assert ana_fx.verify(program, tmp_path / "mean.onnx", x).num_different == 0
