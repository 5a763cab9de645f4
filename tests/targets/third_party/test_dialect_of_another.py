"""The errand of who adds a dialect: a writer, a target and an entry point, in a package of its own."""

from dataclasses import replace

import onnx
import pytest

import ana_fx
from ana_fx.operators.sum import Sum
from ana_fx.targets.dialects.integer import INTEGER
from ana_fx.targets.onnx import file_operators
from tests.models import Residual, example
from tests.targets.third_party import sum_dialect


@pytest.fixture
def program(install):
    install("sum_dialect", "tests.targets.third_party.sum_dialect:TARGET")
    x = example(Residual)
    return ana_fx.convert(ana_fx.prepare(Residual(), x, target="sum", calibration=[x]))


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_its_writer_writes_the_file_and_every_bit_is_equal(program, tmp_path):
    report = ana_fx.export(program, tmp_path / "model.onnx")
    assert "Sum" in operators(tmp_path / "model.onnx")
    assert [node.operator for node in report.nodes if "add" in node.name] == ["Sum", "Sum"]
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


def test_it_is_listed_and_inspected_as_ours_are(program, tmp_path):
    ana_fx.export(program, tmp_path / "model.onnx", labels=None)
    assert [target.name for target in ana_fx.targets()][-1] == "sum"
    assert ana_fx.inspect(tmp_path / "model.onnx").target == "sum"


def test_our_dialect_stays_as_it_was(program, tmp_path):
    ana_fx.export(program, tmp_path / "model.onnx", target="integer")
    assert "Sum" not in operators(tmp_path / "model.onnx")
    assert ("", "Sum") not in file_operators.OPERATORS


def test_an_operator_that_it_does_not_name_is_not_run(program, tmp_path, monkeypatch):
    ana_fx.export(program, tmp_path / "model.onnx")
    monkeypatch.setattr(sum_dialect, "DIALECT", replace(sum_dialect.DIALECT, more_operators=frozenset()))
    with pytest.raises(ana_fx.VerifyError, match="none that export\\(\\) writes: Sum"):
        ana_fx.verify(program, tmp_path / "model.onnx")


def test_what_its_table_lacks_is_refused_by_operator_node_and_target(program, tmp_path, monkeypatch):
    less = {kind: writer for kind, writer in INTEGER.operators.items() if kind is not Sum}
    monkeypatch.setattr(sum_dialect, "DIALECT", replace(INTEGER, operators=less))
    with pytest.raises(ana_fx.ExportError, match=r"'blocks.0.add'.*target 'sum' has no writer for Sum") as refusal:
        ana_fx.export(program, tmp_path / "model.onnx")
    assert str(refusal.value).count("no writer") == 2
    assert not (tmp_path / "model.onnx").exists()


def test_an_emitter_that_is_no_dialect_is_refused(program, tmp_path, monkeypatch):
    monkeypatch.setattr(sum_dialect, "DIALECT", 3)
    with pytest.raises(TypeError, match="of target 'sum' is 3, needed a Dialect"):
        ana_fx.export(program, tmp_path / "model.onnx")
