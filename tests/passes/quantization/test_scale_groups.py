"""Scale groups: what a join puts together has one scale, and what cannot have it is requantised before.

This covers passes/quantization/insert_requantizers.py too.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.passes.base_pass import run_pipeline
from ana_fx.passes.quantization.first_last_precision import FirstLastPrecision
from ana_fx.passes.quantization.insert_requantizers import InsertRequantizers
from ana_fx.passes.quantization.scale_groups import scale_groups
from ana_fx.precision.precision import Precision
from tests.graphs import Written, assert_graph, assert_same_numbers, fused

X = torch.rand(8, 3, 6, 6)


def model(forward) -> nn.Module:
    torch.manual_seed(0)
    return Written(forward, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1), c=nn.Conv2d(3, 3, 1))


def cat(*tensors):
    return torch.cat(tensors, 1)


def groups(forward) -> list[list[str]]:
    return [[str(node.target) for node in group] for group in scale_groups(fused(model(forward)))]


GROUPS = {
    "alone": (lambda m, x: m.b(m.a(x)), [["a"], ["b"]]),
    "a sum has inputs of any scale": (lambda m, x: m.a(x) + m.b(x), [["a"], ["b"], ["add"]]),
    "cat": (lambda m, x: m.c(cat(m.a(x), m.b(x))[:, :3]), [["a", "b"], ["c"]]),
    "stack": (lambda m, x: torch.stack([m.a(x), m.b(x)], 1), [["a", "b"]]),
    "through movements and pools": (
        lambda m, x: cat(F.max_pool2d(m.a(x), 2).flip(2), m.b(x)[:, :, ::2, ::2]),
        [["a", "b"]],
    ),
    "not through layer maps": (lambda m, x: cat(m.c(m.a(x)), m.b(x)), [["a"], ["c", "b"]]),
    "one tensor twice": (lambda m, x: (lambda y: cat(y, y))(m.a(x)), [["a"]]),
    "two cats that meet in one": (lambda m, x: (lambda y: (cat(y, m.b(x)), cat(y, m.c(x))))(m.a(x)), [["a", "b", "c"]]),
    "a cat of cats": (lambda m, x: cat(cat(m.a(x), m.b(x)), m.c(x)), [["a", "b", "c"]]),
    "two cats": (lambda m, x: (cat(m.a(x), m.b(x)), m.c(x)), [["a", "b"], ["c"]]),
}


@pytest.mark.parametrize(("forward", "wanted"), GROUPS.values(), ids=GROUPS)
def test_what_is_joined_is_one_group(forward, wanted):
    assert sorted(map(sorted, groups(forward))) == sorted(map(sorted, wanted))


REQUANTIZED = {
    "nothing": (
        lambda m, x: cat(m.a(x), m.b(x)),
        "int4",
        "x -> Convolution -> Convolution_2(x) -> cat(Convolution, Convolution_2) -> output",
    ),
    "the input": (
        lambda m, x: cat(m.a(x), x),
        "int4",
        "x -> Convolution -> Identity(x) -> cat(Convolution, Identity) -> output",
    ),
    "the input behind a movement": (
        lambda m, x: cat(m.a(x), x.flip(1)),
        "int4",
        "x -> Convolution -> flip(x) -> Identity -> cat(Convolution, Identity) -> output",
    ),
    "a softmax": (
        lambda m, x: cat(m.a(x), m.b(x).softmax(1)),
        "int8",
        """x -> Convolution -> Convolution_2(x) -> SoftmaxMap -> Identity -> cat(Convolution, Identity) -> output""",
    ),
    "what a table reads too, with fewer bits": (
        lambda m, x: (lambda y: cat(y, m.b(x), F.silu(y)))(m.a(x)),
        "int4",
        """x -> Convolution -> Convolution_2(x) -> TableMap(Convolution) -> Identity(Convolution)
        -> cat(Identity, Convolution_2, TableMap) -> output""",
    ),
    "nothing that a table reads too with eight bits": (
        lambda m, x: (lambda y: cat(y, m.b(x), F.silu(y)))(m.a(x)),
        "int8",
        """x -> Convolution -> Convolution_2(x) -> TableMap(Convolution)
        -> cat(Convolution, Convolution_2, TableMap) -> output""",
    ),
}


@pytest.mark.parametrize(("forward", "precision", "wanted"), REQUANTIZED.values(), ids=REQUANTIZED)
def test_what_cannot_share_a_scale_is_requantised_before_the_join(forward, precision, wanted):
    gm = run_pipeline(fused(model(forward)), (FirstLastPrecision(Precision.parse(precision)), InsertRequantizers()))
    assert_graph(gm, wanted)
    assert_same_numbers(gm, model(forward), X)
    assert not InsertRequantizers()(gm).modified


def test_quantizers_of_a_group_have_one_scale_the_largest_that_one_of_them_needs():
    joined = model(lambda m, x: m.c(cat(m.a(x), m.b(x) * 10)[:, 1:4]))
    apart = model(lambda m, x: m.c(m.a(x) + m.b(x) * 10))
    together, alone = (
        layer_maps(ana_fx.prepare(each, X, precision="int4", calibration=[X])) for each in (joined, apart)
    )
    assert together["a"].output_quantizer.scale is together["b"].output_quantizer.scale
    assert together["a"].output_quantizer.integer_type == together["b"].output_quantizer.integer_type
    needed = torch.maximum(alone["a"].output_quantizer.scale, alone["b"].output_quantizer.scale)
    assert torch.equal(together["a"].output_quantizer.scale, needed)


def test_a_group_is_signed_if_one_of_it_is():
    maps = layer_maps(ana_fx.prepare(model(lambda m, x: m.c(cat(m.a(x).relu(), m.b(x))[:, 1:4])), X, precision="int4"))
    assert [str(maps[path].output_quantizer.integer_type) for path in "ab"] == ["int4", "int4"]
    maps = layer_maps(ana_fx.prepare(model(lambda m, x: m.c(cat(m.a(x).relu(), m.b(x).relu())[:, 1:4])), X))
    assert [str(maps[path].output_quantizer.integer_type) for path in "ab"] == ["uint8", "uint8"]


def test_a_group_has_the_bits_of_its_widest():
    precision = Precision("int4", "uint4", overrides={"b": Precision("int4", "uint6")})
    maps = layer_maps(ana_fx.prepare(model(lambda m, x: m.c(cat(m.a(x), m.b(x))[:, 1:4])), X, precision=precision))
    assert {maps[path].output_quantizer.integer_type.bits for path in "ab"} == {6}


@pytest.mark.parametrize("learn", [False, True])
def test_a_shared_scale_stays_shared_through_copies_moves_and_states(learn):
    forward = GROUPS["cat"][0]
    schedule = ana_fx.Schedule(learn_scales=learn)
    qat = ana_fx.prepare(model(forward), X, schedule=schedule, calibration=[X])._apply(torch.clone)
    other = ana_fx.prepare(model(forward), X, schedule=schedule)
    other.load_state_dict(qat.state_dict())
    first, second = (layer_maps(other)[path].output_quantizer for path in "ab")
    assert first.scale is second.scale
    assert torch.equal(first.scale, layer_maps(qat)["a"].output_quantizer.scale)


def test_the_first_batch_tells_a_shared_scale_as_calibration_does():
    forward = GROUPS["cat"][0]
    told = ana_fx.prepare(model(forward), X, precision="int4", calibration=[X])
    seen = ana_fx.prepare(model(forward), X, precision="int4").train()
    seen(X)
    scales = [layer_maps(qat)["a"].output_quantizer.scale.detach() for qat in (told, seen)]
    # calibration sees weights of full width, the batch those of four bits; neither moves a step by an octave
    assert 0.5 <= float(scales[0] / scales[1]) <= 2.0


ALIGNED = {
    "the tensors of a sum": (lambda m, x: m.c(m.a(x) + m.b(x)), [["a", "b"], ["add"], ["c"]]),
    "a skip and its branch": (lambda m, x: (lambda y: y + m.b(y))(m.a(x)), [["a", "b"], ["add"]]),
    "not what a product multiplies": (lambda m, x: m.a(x) * m.b(x), [["a"], ["b"], ["mul"]]),
}


@pytest.mark.parametrize(("forward", "wanted"), ALIGNED.values(), ids=ALIGNED)
def test_what_is_added_shares_a_scale_where_a_target_needs_it(forward, wanted):
    found = scale_groups(fused(model(forward)), aligns_sums=True)
    assert sorted(sorted(str(node.target) for node in group) for group in found) == sorted(wanted)


def test_an_input_is_requantised_before_such_a_sum():
    gm = fused(model(lambda m, x: m.a(x) + x))
    assert run_pipeline(gm, (FirstLastPrecision(Precision.parse("int4")), InsertRequantizers(aligns_sums=True)))
    assert_graph(gm, "x -> Convolution -> Identity(x) -> Sum(Convolution, Identity) -> output")


def test_tensors_of_a_sum_share_their_scale_and_keep_their_types():
    forward = model(lambda m, x: m.c(m.a(x).relu() + m.b(x)))
    maps = layer_maps(ana_fx.prepare(forward, X, precision="int4", target="deeploy"))
    first, second = (maps[path].output_quantizer for path in "ab")
    assert first.scale is second.scale
    assert [str(each.integer_type) for each in (first, second)] == ["uint4", "int4"]
    apart = layer_maps(ana_fx.prepare(forward, X, precision="int4", target="integer"))
    assert apart["a"].output_quantizer.scale is not apart["b"].output_quantizer.scale


def test_what_is_clipped_keeps_its_scale_where_clips_must_end_with_the_levels():
    net = model(lambda m, x: (lambda y: y + m.b(y))(F.relu6(m.a(x))))
    maps = layer_maps(ana_fx.prepare(net, X * 100, precision="int8", target="dory", calibration=[X * 100]))
    first, copy, second = (maps[path].output_quantizer for path in ("a", "a_1_requantizer", "b"))
    assert int(first.levels().hi) == 255
    assert copy.scale is second.scale
    together = layer_maps(ana_fx.prepare(net, X * 100, precision="int8", target="deeploy", calibration=[X * 100]))
    assert together["a"].output_quantizer.scale is together["b"].output_quantizer.scale
