"""How many bytes weights take: packed, in float32, and in the files of each target."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.program.weight_sizes import NO_WEIGHTS, WeightSize, weight_size
from tests.models import Residual, example

NUM_WEIGHTS = 3744  # of Residual's convolutions and its head


def program(precision="int4", target="onnxruntime"):
    x = example(Residual)
    qat = ana_fx.prepare(Residual().eval(), x, precision=precision, calibration=[x], target=target)
    return qat, ana_fx.convert(qat.eval())


def test_the_number_is_that_of_the_float_model():
    modules = Residual().modules()
    assert sum(m.weight.numel() for m in modules if isinstance(m, (nn.Conv2d, nn.Linear))) == NUM_WEIGHTS


@pytest.mark.parametrize(("precision", "bits"), [("int4", 4), ("ternary", 2), ("int2", 2), ("binary", 1)])
def test_a_prepared_model_and_its_program_tell_packed_bytes(precision, bits):
    qat, integer = program(precision)
    summary = ana_fx.describe(qat)
    assert (summary.weight_bytes, summary.float_bytes) == (NUM_WEIGHTS * bits // 8, 4 * NUM_WEIGHTS)
    assert f"Weights: {summary.weight_bytes:,} bytes packed" in str(summary)
    assert json.loads(summary.to_json())["weight_bytes"] == summary.weight_bytes
    found = ana_fx.describe(integer)
    assert found.float_bytes == 4 * NUM_WEIGHTS
    assert (
        found.weight_bytes == NUM_WEIGHTS * max(bits, 2) // 8
    )  # of −1 and 1, which two's complement holds in two bits


@pytest.mark.parametrize(
    ("target", "bytes_each"),
    [("onnxruntime", 1), ("integer", 1), ("qdq", 0.5), ("qdq-int8", 1), ("deeploy", 4), ("dory", 4), ("tflite", 1)],
)
def test_an_export_report_tells_the_bytes_of_weights_in_the_file(target, bytes_each, tmp_path):
    _, integer = program(target=target)
    path = tmp_path / ("model.tflite" if target == "tflite" else "model.onnx")
    report = ana_fx.export(integer, path)
    assert (report.weight_bytes, report.float_bytes) == (NUM_WEIGHTS * bytes_each, 4 * NUM_WEIGHTS)
    assert report.ratio == 4 / bytes_each
    assert f"1/{report.ratio:.1f} of {report.float_bytes:,} in float32" in str(report)
    assert ("this file holds each in a byte or more" in str(report)) is (bytes_each >= 1)
    assert json.loads(report.to_json())["weight_bytes"] == report.weight_bytes


def test_they_are_what_stands_in_an_onnx_file(tmp_path):
    report = ana_fx.export(program()[1], tmp_path / "model.onnx")
    tensors = {tensor.name: len(tensor.raw_data) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for node in report.nodes:
        assert node.weight_bytes == (tensors.get(f"{node.name}.weight", 0) if node.num_weights else 0), node.name


def test_a_float_layer_counts_with_four_bytes(tmp_path):
    x, precision = torch.rand(4, 6), ana_fx.Precision("int4", "uint4", overrides={"2": "float"})
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    qat = ana_fx.prepare(model, x, precision=precision, calibration=[x])
    integer = ana_fx.convert(qat.eval())
    for summary in (ana_fx.describe(qat), ana_fx.describe(integer)):
        assert (summary.weight_bytes, summary.float_bytes) == (24 // 2 + 16 * 4 + 8 // 2, 48 * 4)
    assert ana_fx.export(integer, tmp_path / "model.onnx").weight_bytes == 24 + 16 * 4 + 8


def test_what_has_no_trained_weights_counts_none():
    _, integer = program()
    assert weight_size(integer.get_submodule("mean")) == NO_WEIGHTS  # its coefficients are all 1
    assert weight_size(None) == weight_size(nn.ReLU()) == NO_WEIGHTS
    assert WeightSize(3, 3).packed_bytes == 2
