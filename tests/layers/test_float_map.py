"""Layers that stay in floats inside a quantised network: what they compute, how they train, what files hold of them.

They cover `passes/quantization/keep_float.py`, `passes/checks/check_float_maps.py`,
`passes/lowering/lower_float_map.py` and `targets/float_tolerance.py` too.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import ana_fx
from ana_fx.graph import calls_to, layer_map_calls, layer_maps
from ana_fx.layers.layer_map import Phase
from ana_fx.precision.precision_json import precision_from_json, precision_to_json
from ana_fx.program.program_borders import QuantizeFloat
from ana_fx.targets.float_tolerance import float_tolerance
from tests.graphs import Written, assert_graph
from tests.models import Chain, Residual, example, train

ISLANDS = {
    "one layer": (Chain, {"hidden": "float"}),
    "the first": (Chain, {"features.0": "float"}),
    "behind a pool, to the end": (Chain, {"features.5": "float", "hidden": "float", "head": "float"}),
    "a block": (Residual, {"blocks.0": "float"}),
    "two blocks": (Residual, {"blocks": "float"}),
}


def precision(overrides, **settings):
    return ana_fx.Precision("int4", "uint4", overrides=overrides, **settings)


def prepared(kind, overrides, *, target="onnxruntime", model=None, **settings):
    x, model = example(kind), model or with_norms(kind()).eval()
    return ana_fx.prepare(model, x, precision=precision(overrides), calibration=[x], target=target, **settings).eval()


def with_norms(model):
    """Batch norms that do something; those of `make_awkward` grow by 10^6 a layer, which only integers clip."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(-2, 2)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model


def float_paths(qat):
    return [str(node.target) for node, layer_map in layer_map_calls(qat) if layer_map.stays_float]


@torch.no_grad()
@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
@pytest.mark.parametrize("case", ISLANDS)
def test_program_and_file_go_on_bit_for_bit_behind_floats(case, target, tmp_path):
    kind, overrides = ISLANDS[case]
    x, path = example(kind, 16), tmp_path / "model.onnx"
    qat = prepared(kind, overrides, target=target)
    program = ana_fx.convert(qat)
    assert torch.equal(program(x), qat(x))
    for io in ("integer", "float"):
        report = ana_fx.export(program, path, io=io)
        assert report.float_layers == tuple(float_paths(qat))
        assert ana_fx.verify(program, path, x).num_different == 0
        assert ana_fx.verify(program, path).has_floats


def test_a_float_layer_computes_what_the_float_model_computes():
    """With eight bits elsewhere the block's weights are the only ones that are not rounded."""
    torch.manual_seed(0)
    x, model = example(Residual), Residual().eval()
    inside = prepared(Residual, {"blocks.0": "float"}, model=model)
    block, conv = model.blocks[0], inside.get_submodule("blocks.0.conv1")
    y = torch.rand(2, 8, 4, 4)
    wanted = torch.relu(block.bn1(block.conv1(y)))
    assert torch.equal(conv.eval()(y), conv.deployed((y,), conv.current_form((), y.shape), ()))
    torch.testing.assert_close(conv(y), wanted)  # the norm is folded: float32 rounding apart
    assert inside(x).isfinite().all()


def test_an_island_begins_with_a_dequantize_and_ends_with_a_quantize():
    program = ana_fx.convert(prepared(Chain, {"hidden": "float"}))
    assert_graph(
        program,
        """x -> Quantize -> IntegerMap -> IntegerMaxPool -> IntegerMap_2 -> IntegerMaxPool_2 -> Reshape
        -> Dequantize -> Linear+relu -> QuantizeFloat -> IntegerHead -> Dequantize_2 -> output""",
    )


def test_reals_go_on_between_float_layers_and_what_multiplies_no_weight_stays_in_integers():
    qat = prepared(Residual, {"blocks.0": "float", "mean": "float"})
    maps = {str(node.target): each for node, each in layer_map_calls(qat)}
    kept = [maps[f"blocks.0.{name}"] for name in ("conv1", "conv2", "add")]
    assert [each.output_quantizer is None for each in kept] == [True, True, False]
    assert not maps["mean"].stays_float
    assert "mean: kept in integers, where reading integers without a weight loses nothing" in str(ana_fx.describe(qat))


def test_a_sum_of_integers_alone_stays_in_integers():
    qat = prepared(Residual, {"blocks.0.add": "float"})
    assert float_paths(qat) == []
    x = example(Residual)
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


def test_every_report_says_that_floats_are_not_proven(tmp_path):
    program = ana_fx.convert(prepared(Chain, {"hidden": "float"}))
    exported = ana_fx.export(program, tmp_path / "model.onnx")
    page = ana_fx.report(program, tmp_path / "report.html", files=[tmp_path / "model.onnx"])
    for said in (
        str(ana_fx.describe(prepared(Chain, {"hidden": "float"}))),
        str(ana_fx.describe(program)),
        str(exported),
        page.page.read_text(encoding="utf-8"),
        page.data.read_text(encoding="utf-8"),
    ):
        assert "Not proven: float" in said
    assert "not proven" in str(ana_fx.verify(program, tmp_path / "model.onnx"))
    assert "nodes give floats" in str(ana_fx.inspect(tmp_path / "model.onnx"))
    rows = {row.name: row for row in ana_fx.describe(program).rows}
    assert (rows["hidden"].weight, rows["hidden"].output, rows["hidden"].proof) == (
        "float32",
        "uint4",
        "not proven: float",
    )


def test_a_program_with_an_island_is_saved_and_loaded(tmp_path):
    program, x = ana_fx.convert(prepared(Residual, {"blocks.0": "float"})), example(Residual)
    ana_fx.save(program, tmp_path / "program.anafx")
    loaded = ana_fx.load(tmp_path / "program.anafx")
    assert torch.equal(loaded(x), program(x))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(loaded, tmp_path / "model.onnx", x).num_different == 0


def test_a_saved_program_whose_island_has_no_float_layer_is_refused(tmp_path):
    program = ana_fx.convert(prepared(Residual, {"blocks.0": "float"}))
    (border,) = calls_to(program, QuantizeFloat)
    (sum_of_both,) = border.all_input_nodes
    border.replace_input_with(sum_of_both, sum_of_both.all_input_nodes[1])  # what the block reads, dequantised
    program.graph.erase_node(sum_of_both)
    ana_fx.save(program, tmp_path / "program.anafx")
    with pytest.raises(ana_fx.VerifyError, match="reads what no float layer gives"):
        ana_fx.load(tmp_path / "program.anafx")


@pytest.mark.parametrize("name", ["hidden.weight", "head.weight"])
def test_a_changed_weight_is_found_in_the_island_and_behind_it(name, tmp_path):
    program, path = ana_fx.convert(prepared(Chain, {"hidden": "float"})), tmp_path / "model.onnx"
    ana_fx.export(program, path)
    model = onnx.load(path)
    (weight,) = (each for each in model.graph.initializer if each.name.startswith(name))
    array = numpy_helper.to_array(weight).copy()
    array.flat[:] = np.roll(array.ravel(), 1)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)
    with pytest.raises(ana_fx.VerifyError, match="differs from the program"):
        ana_fx.verify(program, path)


def test_a_file_with_an_island_is_compared_with_programs_alone(tmp_path):
    from ana_fx.targets.compare import verify_files

    program, path = ana_fx.convert(prepared(Chain, {"hidden": "float"})), tmp_path / "model.onnx"
    ana_fx.export(program, path)
    ana_fx.save(program, tmp_path / "program.anafx")
    assert verify_files(path, tmp_path / "program.anafx").num_different == 0
    with pytest.raises(ana_fx.VerifyError, match="needed a program to compare with, layer by layer"):
        verify_files(path, path)


def test_metadata_without_the_levels_behind_an_island_are_refused(tmp_path):
    program, path = ana_fx.convert(prepared(Chain, {"hidden": "float"})), tmp_path / "model.onnx"
    ana_fx.export(program, path)
    model = onnx.load(path)
    kept = [each for each in model.metadata_props if not each.key.endswith(".levels")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    with pytest.raises(ana_fx.VerifyError, match="the metadata do not describe 'hidden_quantizer"):
        ana_fx.verify(program, path)


@pytest.mark.parametrize("target", ["deeploy", "dory", "tflite", "qonnx"])
def test_targets_of_integers_refuse_islands_and_say_the_way_out(target):
    x = example(Chain)
    with pytest.raises(ana_fx.PrecisionError, match=r"module 'hidden'.*it stays in floats, needed integers: give it"):
        ana_fx.prepare(Chain(), x, precision=precision({"hidden": "float"}), target=target)


def test_what_has_no_float_form_in_files_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Softmax(1), nn.Linear(4, 2))
    with pytest.raises(ana_fx.PrecisionError, match="needed one of convolution, identity, linear, sum") as found:
        ana_fx.prepare(model, torch.rand(2, 4), precision=precision({"*": "float"}))
    assert "module '1'" in str(found.value)
    assert "module '2'" in str(found.value)


@pytest.mark.parametrize(
    ("given", "schedule", "said"),
    [
        (ana_fx.Precision(activation="uint1", stays_float=True), "lsq", "its output is"),
        ("float", "shifted-ste", "its thresholds are moved"),
    ],
)
def test_levels_that_no_quantize_linear_gives_are_refused(given, schedule, said):
    with pytest.raises(ana_fx.PrecisionError, match=said):
        ana_fx.prepare(Chain(), example(Chain), precision=precision({"hidden": given}), schedule=schedule)


def test_a_whole_model_in_floats_is_refused():
    with pytest.raises(ValueError, match="needed a width for all others"):
        ana_fx.prepare(Chain(), precision=ana_fx.Precision(stays_float=True))


def test_a_precision_with_an_island_survives_json_states_and_programs(tmp_path):
    given = precision({"hidden": "float", "head": "int8"})
    assert given.of("hidden").stays_float
    assert precision_from_json(json.loads(json.dumps(precision_to_json(given)))) == given
    qat = prepared(Chain, {"hidden": "float"})
    settings = ana_fx.settings_of(qat.state_dict())
    assert settings.precision.of("hidden").stays_float
    assert settings.layers["hidden"] == "float"
    other = ana_fx.prepare(Chain(), example(Chain), precision=precision({}))
    with pytest.raises(ana_fx.SettingsError, match="the state has float"):
        other.load_state_dict(qat.state_dict(), strict=False)


@pytest.mark.parametrize("depth", ["weights", "layer_maps"])
def test_an_island_trains_and_is_frozen_with_what_reads_it(depth):
    qat = ana_fx.prepare(
        Residual(),
        example(Residual),
        precision=precision({"blocks.0": "float"}),
        schedule=ana_fx.Schedule(depth=depth),
    )
    annealer, optimizer = ana_fx.Annealer(qat, 40), torch.optim.AdamW(qat.parameters(), lr=1e-2, weight_decay=0.1)
    conv, add = qat.get_submodule("blocks.0.conv1"), qat.get_submodule("blocks.0.add")
    first, frozen = conv.weight.detach().clone(), None
    for _ in range(40):
        qat(example(Residual, 16)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        annealer.step()
        if frozen is None and add.phase is not Phase.LEARNING:
            assert not torch.equal(conv.weight, first)
            frozen = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    assert conv.phase is Phase.FROZEN
    assert all(torch.equal(frozen[name], tensor) for name, tensor in conv.state_dict().items())
    qat.eval()
    assert torch.equal(ana_fx.convert(qat)(example(Residual, 4)).isfinite().all(), torch.tensor(True))


def test_the_depth_behind_an_island_counts_its_weights():
    qat = prepared(Residual, {"blocks.0": "float"})
    ranges = ana_fx.annealing_ranges(qat)
    assert (ranges["stem.0"].depth, ranges["blocks.0.add"].depth, ranges["blocks.1.conv1"].depth) == (0, 1, 2)


def test_a_trained_island_is_what_is_shipped(tmp_path):
    qat = prepared(Chain, {"hidden": "float"})
    train(qat, (3, 10, 10), 20)
    qat.eval()
    program, x = ana_fx.convert(qat), example(Chain, 16)
    assert torch.equal(program(x), qat(x))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


def exact(module, *inputs):
    weight, bias = (None if each is None else each.double() for each in (module.weight, module.bias))
    clip = module.clip_range
    return module.operator.real(inputs, weight, bias).clamp(clip.minimum, clip.maximum)


@torch.no_grad()
def test_the_tolerance_of_a_chain_holds_its_double_precision():
    """What float32 gives is nowhere further from float64 than the bound of two evaluations."""
    program = ana_fx.convert(prepared(Residual, {"blocks.0": "float"}, model=Residual().eval()))
    conv1, conv2, add = (program.get_submodule(f"blocks.0.{name}") for name in ("conv1", "conv2", "add"))
    x = torch.randn(8, 8, 8, 8)
    first = conv1(x)
    second, off = conv2(first), float_tolerance(conv1, [x])
    behind = float_tolerance(conv2, [first], [off])
    last = float_tolerance(add, [second, x], [behind, None])
    inner = exact(conv2, exact(conv1, x.double()))
    wanted = exact(add, inner, x.double())
    error = (add(second, x).double() - wanted).abs()
    assert (error <= last).all()
    assert float(error.max()) > 0
    assert float(last.max()) < 1e-3


def test_a_model_written_with_functions_has_islands_too():
    model = Written(lambda m, x: m.b(torch.relu(m.a(x)) + x), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 2, 1))
    x = torch.rand(4, 3, 5, 5)
    qat = ana_fx.prepare(model, x, precision=precision({"a": "float"}), calibration=[x]).eval()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))
    assert list(layer_maps(qat)) == ["a", "add", "b"]
