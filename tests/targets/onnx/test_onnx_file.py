"""An ONNX file that was read: what it says of itself does not depend on whether it has run."""

import numpy as np
import onnx
import pytest

import ana_fx
from ana_fx.targets.onnx.onnx_family import ONNX_FAMILY
from ana_fx.targets.onnx.onnx_file import borders
from tests.models import Chain, example


@pytest.fixture
def file(tmp_path):
    x, precision = example(Chain), ana_fx.Precision("int4", output="float")
    program = ana_fx.convert(ana_fx.prepare(Chain(), x, precision=precision, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    return ONNX_FAMILY.read(tmp_path / "model.onnx")


def test_a_run_shows_what_a_float_layer_reads_and_leaves_the_model_as_it_was(file):
    before = file.model.SerializeToString(deterministic=True)
    (border,) = file.inputs
    found = file.run(ONNX_FAMILY.runtime("onnxruntime"), {border.name: np.zeros((2, *border.shape), border.dtype)})
    assert [len(found.outputs), len(found.float_inputs)] == [1, 1]
    assert file.float_tolerance(found) > 0
    assert file.model.SerializeToString(deterministic=True) == before


def test_inputs_of_another_shape_are_refused(file):
    (border,) = file.inputs
    with pytest.raises(ana_fx.VerifyError, match="does not take this program's inputs"):
        file.run(ONNX_FAMILY.runtime("onnxruntime"), {border.name: np.zeros((2, 1), border.dtype)})


def test_its_borders_are_those_of_the_model(file):
    assert borders(onnx.load(file.path)) == (file.inputs, file.outputs)
    assert [file.is_float_layer(output) for output in file.outputs] == [True]


def test_attributes_of_dory_are_hidden_from_the_checker_in_files_of_dory_only(tmp_path):
    x = example(Chain)
    program = ana_fx.convert(ana_fx.prepare(Chain(), x, precision="int8", target="integer", calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("weight_bits", 8))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ana_fx.VerifyError, match="Unrecognized attribute: weight_bits"):
        ONNX_FAMILY.read(tmp_path / "model.onnx")
