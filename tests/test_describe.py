"""The table of layer maps, of a prepared model and of a program."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.program.integer_layers import IntegerMap
from tests.models import Chain, Residual, Shared, example
from tests.programs import converted, trained


def column(summary: ana_fx.Summary, name: str) -> dict[str, object]:
    return {row.name: getattr(row, name) for row in summary.rows}


def test_a_prepared_model_has_a_row_for_each_layer_map():
    summary = ana_fx.describe(trained(Chain, "ternary"))
    assert column(summary, "operation") == {
        "features.0": "convolution + batch norm + relu",
        "features.5": "convolution + batch norm + relu6",
        "hidden": "linear + batch norm + relu",
        "head": "linear",
    }
    assert column(summary, "weight") == dict.fromkeys(column(summary, "name"), "ternary")
    assert list(column(summary, "output").values()) == ["uint2", "uint2", "uint2", "int32"]


def test_rows_tell_depth_and_annealing_range():
    qat = ana_fx.prepare(Residual(), example(Residual), schedule="best-dynamic")
    assert {row.name: (row.depth, row.start, row.end) for row in ana_fx.describe(qat).rows} == {
        path: (found.depth, found.start, found.end) for path, found in ana_fx.annealing_ranges(qat).items()
    }


def test_noise_that_stays_has_neither_start_nor_end():
    qat = ana_fx.prepare(Residual(), example(Residual), schedule="lsq")
    assert {(row.start, row.end) for row in ana_fx.describe(qat).rows} == {(None, None)}
    assert " start " not in str(ana_fx.describe(qat))


def test_a_scale_is_shown_once_it_is_known():
    qat = ana_fx.prepare(Residual(), example(Residual))
    before = column(ana_fx.describe(qat), "scale")
    qat.train()(example(Residual))
    after = column(ana_fx.describe(qat), "scale")
    assert before["stem.0"] == after["stem.0"] == qat.get_submodule("stem.0").output_quantizer.scale.item()
    assert before["mean"] is None
    assert after["mean"] is not None
    assert after["head"] is None  # raw accumulators


@pytest.mark.parametrize("target", ["onnxruntime", "integer"])
def test_a_program_has_the_rows_of_its_model(target):
    model = ana_fx.describe(trained(Residual, target=target))
    program = ana_fx.describe(converted(Residual, target=target))
    for name in ("name", "depth", "output", "scale"):
        assert column(program, name) == column(model, name)
    assert {(row.start, row.end) for row in program.rows} == {(None, None)}  # a program is not trained


def test_a_program_tells_bounds_encodings_and_proofs():
    program = converted(Chain, "ternary")
    rows = {row.name: row for row in ana_fx.describe(program).rows}
    module = program.get_submodule("hidden")
    assert isinstance(module, IntegerMap)
    assert rows["hidden"].accumulator == module.bound
    assert rows["hidden"].weight == "-1…1"
    assert rows["hidden"].multiplier_bits == int(module.multiplier.max()).bit_length()
    assert rows["hidden"].encoding == "QLinear = multiply-shift"
    assert f"{module.proof.num_thresholds} thresholds" in rows["hidden"].proof


def test_a_program_for_the_integer_target_is_described_as_such():
    summary = ana_fx.describe(converted(Chain, target="integer"))
    assert set(column(summary, "encoding").values()) == {"multiply-shift", "accumulator"}
    assert "target integer" in summary.title


def test_a_corrected_encoding_is_said_to_be():
    kinds = {row.encoding for row in ana_fx.describe(converted(Residual, "int8")).rows}
    corrected = [
        m for m in converted(Residual, "int8").modules() if isinstance(m, IntegerMap) and m.correction is not None
    ]
    assert ("QLinear = multiply-shift, corrected" in kinds) is bool(corrected)


def test_the_bound_of_a_head_holds_its_bias_and_head_room():
    head = converted(Chain, "ternary").get_submodule("head")
    row = ana_fx.describe(converted(Chain, "ternary")).rows[-1]
    assert (row.output, row.encoding, row.proof) == ("int32", "accumulator", None)
    assert row.accumulator == head.bound * head.factor + int(head.bias.abs().max())


def test_a_shared_module_has_a_row_at_each_call():
    assert list(column(ana_fx.describe(trained(Shared)), "name")) == [
        "stem",
        "conv",
        "conv_1",
        "add",
        "avg_pool2d",
        "head",
    ]


def test_a_float_last_layer_is_said_to_be_float():
    x, precision = example(Chain), ana_fx.Precision("int4", "uint4", output="float")
    qat = ana_fx.prepare(Chain(), x, precision=precision, calibration=[x])
    for summary in (ana_fx.describe(qat), ana_fx.describe(ana_fx.convert(qat))):
        assert (summary.rows[-1].name, summary.rows[-1].output, summary.rows[-1].depth) == ("head", "float", None)


def test_the_table_shows_a_line_for_each_row_and_a_title():
    text = str(ana_fx.describe(trained(Chain, "ternary")))
    assert text.startswith("prepared model: 4 layer maps, target onnxruntime\n")
    for name in ("features.0", "features.5", "hidden", "head"):
        (line,) = (line for line in text.splitlines() if f" {name} " in line)
        assert " ternary " in line
    assert "proof" not in text


def test_the_table_of_a_program_has_more_columns_and_fits_its_width():
    text = str(ana_fx.describe(converted(Residual, "ternary")))
    assert text.startswith("integer program: 10 layer maps, target onnxruntime\n")
    for heading in ("accumulator", "encoding", "multiplier", "proof", "thresholds"):
        assert heading in text
    assert max(len(line) for line in text.splitlines()) <= 160
    assert "\x1b" not in text


def test_describing_changes_nothing():
    qat = trained(Chain)
    before = {key: value.clone() for key, value in qat.state_dict().items()}
    ana_fx.describe(qat)
    assert all(torch.equal(before[key], value) for key, value in qat.state_dict().items())
    assert not qat.training


def test_a_clip_is_part_of_the_operation_as_a_relu_is():
    model = nn.Sequential(nn.Linear(4, 4), nn.Hardtanh(-2, 3), nn.Linear(4, 4), nn.Hardtanh(0, 6), nn.Linear(4, 2))
    clipped, relu6, bare = column(ana_fx.describe(ana_fx.prepare(model)), "operation").values()
    assert (relu6, bare) == ("linear + relu6", "linear")
    assert "-2" in clipped
    assert "3" in clipped
