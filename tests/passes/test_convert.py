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
from ana_fx.graph import calls_to, module_of
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.lowering.program_graph import PROGRAM
from ana_fx.passes.lowering.prove import Prove
from ana_fx.passes.lowering.recording import run
from ana_fx.program.integer_modules import IntegerHead, IntegerMap
from ana_fx.program.program_borders import Dequantize, Quantize
from tests.graphs import Written, assert_graph
from tests.models import INPUT_SHAPES, Chain, Depthwise, Residual, Shared, example
from tests.programs import converted, trained

NETWORKS = list(INPUT_SHAPES)
IMAGES = torch.linspace(0, 1, 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)


def calibrated(model: nn.Module, x: torch.Tensor, **settings: object) -> GraphModule:
    return ana_fx.prepare(model, x, calibration=[x], **settings).eval()


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


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_requantizer_is_proven(kind):
    for integer_map in integer_maps(converted(kind, awkward=True)):
        assert integer_map.proof is not None
        assert integer_map.proof.num_channels == len(integer_map.signed_range()[0])
        assert integer_map.proof.num_thresholds <= integer_map.proof.num_channels * (integer_map.hi - integer_map.lo)


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", [Chain, Depthwise])
def test_a_proof_holds_at_every_accumulator_and_not_only_at_thresholds(kind, precision, target):
    for integer_map in integer_maps(converted(kind, precision, awkward=True, target=target)):
        low, high = (ends[:, None] for ends in integer_map.signed_range())
        step = max(1, int((high - low).max()) // 100_000)  # all of them, where there are not too many
        every = torch.minimum(low + torch.arange(0, int((high - low).max()) + step, step), high)
        wanted = integer_map.staircase.level(every, 0)
        assert torch.equal(integer_map.multiply_shift.level(every, 0), wanted)
        assert bool((wanted.diff(dim=1) >= 0).all())


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


def test_unknown_scales_are_all_listed():
    qat = ana_fx.prepare(Residual(), example(Residual))
    with pytest.raises(ana_fx.CalibrationError) as caught:
        ana_fx.convert(qat)
    for key in (
        "4 scale(s) are not known yet",
        "x_quantizer",
        "blocks.0.add.output_quantizer",
        "mean.output_quantizer",
    ):
        assert key in str(caught.value)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_all_listed(number):
    qat = copy.deepcopy(trained(Chain))
    qat.get_submodule("hidden").weight.data[0, 0] = number
    qat.get_submodule("head").bias.data[:2] = number
    qat.get_submodule("features.0").norm.running_var[1] = number
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        ana_fx.convert(qat)
    for key in (
        "3 tensor(s) are not finite",
        "'hidden'",
        "weight holds 1 NaN or infinite of 192 numbers",
        "bias holds 2 NaN or infinite of 10 numbers",
        "norm.running_var holds 1",
        "Way out: ",
    ):
        assert key in str(caught.value)


def test_a_model_with_nan_weights_is_refused_by_prepare_already():
    model = Chain()
    model.hidden.weight.data[3] = torch.nan
    with pytest.raises(
        ana_fx.UnsupportedError, match=r"(?s)1 tensor.*'hidden'.*weight holds 12 NaN or infinite of 192"
    ):
        ana_fx.prepare(model)


def test_expectation_with_noise_is_refused_until_it_is_annealed():
    schedule = ana_fx.Schedule(strategy="expectation", stop=0.5)
    x = example(Chain)
    qat = calibrated(Chain(), x, schedule=schedule)
    annealer = ana_fx.Annealer(qat, 10)
    for _ in range(4):
        annealer.step()
    with pytest.raises(
        ana_fx.NotAnnealedError, match=r"(?s)quantizer.*head.weight_quantizer: expectation.*progress is 0.5"
    ):
        ana_fx.convert(qat)
    annealer.step()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


def test_a_mean_that_is_not_annealed_is_refused_for_every_strategy():
    qat = calibrated(Chain(), example(Chain), schedule=ana_fx.Schedule(mean="dynamic"))
    ana_fx.Annealer(qat, 10)
    with pytest.raises(ana_fx.NotAnnealedError, match=r"7 quantizer.*\n.*noise of mean -0.5"):
        ana_fx.convert(qat)


def test_the_mode_with_a_static_mean_can_be_converted_at_any_time():
    x = example(Chain)
    qat = calibrated(Chain(), x)
    ana_fx.Annealer(qat, 10)
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


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


def test_a_shape_that_no_batch_has_told_is_refused():
    qat = ana_fx.prepare(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))
    qat.get_submodule("input_1_quantizer").set_scale(torch.tensor(0.1))
    with pytest.raises(ana_fx.ConvertError, match=r"shape of input 'input_1' is not known.*example_inputs, or train"):
        ana_fx.convert(qat)


def test_calibration_tells_the_shape_too():
    x = example(Chain)
    qat = ana_fx.prepare(Chain(), calibration=[x]).eval()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.conv(x).view(4, -1),  # the batch written down
        lambda m, x: m.head(m.conv(x).view(4, -1)),
        lambda m, x: m.conv(x).view(1, -1),  # the batch swallowed
    ],
)
def test_a_batch_axis_that_is_written_down_is_refused(forward):
    model = Written(forward, conv=nn.Conv2d(3, 2, 1), head=nn.Linear(72, 2))
    with pytest.raises(ana_fx.ConvertError, match="needed a leading batch axis"):
        ana_fx.convert(calibrated(model, IMAGES))


class Tamper(Pass):
    """Changes one weight of the layer map at `hidden`."""

    name = "tamper"
    requires = ensures = PROGRAM

    def run(self, gm: GraphModule) -> bool:
        gm.get_submodule("hidden").weight[0, 0] += 64
        return True


def test_the_last_guard_names_the_first_node_that_differs(monkeypatch):
    monkeypatch.setattr("ana_fx.passes.convert.Prove", Tamper)
    with pytest.raises(ana_fx.MismatchError, match=r"module 'hidden'.*differs.* found .*, needed .*report it"):
        ana_fx.convert(trained(Chain))


@pytest.mark.parametrize("field", ["multiplier", "offset", "shift"])
def test_an_encoding_that_is_off_is_not_proven(field):
    program = copy.deepcopy(converted(Chain))
    first = module_of(calls_to(program, IntegerMap)[0])
    getattr(first, field)[2] += 2 ** first.shift[2] if field == "offset" else 1
    with pytest.raises(
        ana_fx.ProofError,
        match=r"'features.0'.*multiplier and shift of channel 2 does not reach level \d+ first at .*: it gives level",
    ):
        Prove()(program)


def test_thresholds_that_are_off_are_not_trusted():
    program = copy.deepcopy(converted(Chain))
    node = calls_to(program, IntegerMap)[0]
    integer_map = module_of(node)
    thresholds = integer_map.staircase.thresholds(*integer_map.signed_range())
    thresholds[2, 0] += 1
    node.meta["thresholds"] = thresholds
    with pytest.raises(ana_fx.ProofError, match=r"'features.0'.*channel 2 does not reach level -?\d+ first at"):
        Prove()(program)


def test_thresholds_do_not_stay_in_the_program():
    assert not any("thresholds" in node.meta for node in converted(Chain).graph.nodes)


def test_logits_above_two_to_the_24_are_compared_as_floats(tmp_path):
    model = nn.Sequential(nn.Linear(2001, 3, bias=False))
    model[0].weight.data.copy_(1.0 + torch.arange(6003).reshape(3, 2001) / 6003)
    x = torch.ones(2, 2001) - torch.arange(2001) / 4002
    qat = ana_fx.prepare(model, x, calibration=[x]).eval()
    program = ana_fx.convert(qat)
    logits = run(program, (x,))
    assert max(int(y.abs().max()) for y in logits.values() if y.dtype is torch.int32) > 2**24
    assert torch.equal(program(x), qat(x))
    ana_fx.export(program, tmp_path / "a.onnx")
    assert ana_fx.verify(program, tmp_path / "a.onnx", x).num_different == 0
