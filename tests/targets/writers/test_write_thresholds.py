"""Levels of a codebook as comparisons of accumulators: equal in both runtimes, with even jumps and uneven ones."""

import onnx
import pytest

import ana_fx
from tests.models import Chain, example

CODEBOOKS = {"one bit": (0, 1), "even": (0, 2, 4, 6), "uneven": (0, 1, 4, 9), "signed": (-3, -1, 1, 3)}


@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
@pytest.mark.parametrize("levels", CODEBOOKS.values(), ids=CODEBOOKS)
def test_levels_of_a_codebook_are_exact(levels, target, tmp_path):
    x, precision = example(Chain), ana_fx.Precision("int4", ana_fx.IntegerType.of_levels(levels))
    program = ana_fx.convert(ana_fx.prepare(Chain(), x, precision=precision, target=target, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert "Less" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0
