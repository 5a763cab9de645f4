"""Which runtimes there are, what they are called with, and what is said where one is missing.

They cover `runtimes/base_runtime.py` too.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import ana_fx
from ana_fx.targets.runtimes.runtimes import RUNTIMES, runtime_called
from tests.models import Chain, Residual, example
from tests.programs import converted, written


def test_the_runtimes_have_names_and_versions():
    assert list(RUNTIMES) == ["onnxruntime", "onnx.reference", "tract", "openvino", "qonnx", "reference-kernels"]
    assert runtime_called("onnxruntime").title == f"onnxruntime {onnxruntime.__version__}"
    assert runtime_called("onnx.reference").title == f"onnx.reference {onnx.__version__}"


def test_an_unknown_runtime_is_refused():
    with pytest.raises(ValueError, match=r"unknown runtime 'tensorrt'; known are 'onnxruntime', 'onnx\.reference', "):
        runtime_called("tensorrt")


@pytest.mark.parametrize("name", ["tract", "openvino", "qonnx"])
def test_a_missing_package_is_named_with_the_extra_that_installs_it(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    ana_fx.export(converted(Chain, "int4"), tmp_path / "model.onnx", target="qdq-int8")
    with pytest.raises(ana_fx.VerifyError, match=rf"runtime '{name}' needs the package '{name}'.*ana_fx\[consumers\]"):
        ana_fx.verify(converted(Chain, "int4"), tmp_path / "model.onnx", runtimes=[name])


def test_a_qonnx_file_needs_its_own_runtime(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "qonnx", None)
    ana_fx.export(converted(Chain, "int4"), tmp_path / "model.onnx", target="qonnx")
    with pytest.raises(ana_fx.VerifyError, match="runtime 'qonnx' needs the package"):
        ana_fx.verify(converted(Chain, "int4"), tmp_path / "model.onnx")


def test_a_file_that_a_runtime_does_not_read_is_named_with_the_runtime(tmp_path):
    ana_fx.export(converted(Chain, "int4"), tmp_path / "model.onnx", target="qonnx")
    with pytest.raises(ana_fx.VerifyError, match=rf"does not run in onnxruntime {onnxruntime.__version__} on this"):
        ana_fx.verify(converted(Chain, "int4"), tmp_path / "model.onnx", runtimes=["onnxruntime"])


def test_runtimes_are_run_in_the_order_that_was_asked_for(tmp_path):
    ana_fx.export(converted(Chain, "int4"), tmp_path / "model.onnx", target="qdq-int8")
    names = ["onnx.reference", "onnxruntime"]
    report = ana_fx.verify(converted(Chain, "int4"), tmp_path / "model.onnx", example(Chain, 5), runtimes=names)
    assert [title.split()[0] for title in report.runtimes] == names
    assert report.num_outputs == 2 * 10 + 5 * 10


def test_what_differs_in_a_runtime_that_rounds_otherwise_is_counted(monkeypatch, tmp_path):
    """A runtime that is off by one in the first logit, for a target whose numbers only onnxruntime promises."""

    def run(model, feeds):
        first, *rest = RUNTIMES["onnxruntime"].run(model, feeds)
        first[0, 0] += 1
        return [first, *rest]

    other = RUNTIMES["onnx.reference"]
    monkeypatch.setitem(RUNTIMES, "onnx.reference", type(other)(other.name, other.package, run))
    path, program = tmp_path / "model.onnx", converted(Residual, "int4")
    ana_fx.export(program, path, target="qdq-int8")
    report = ana_fx.verify(program, path, runtimes=["onnxruntime", "onnx.reference"])
    assert (report.different, report.num_different) == ((0, 1), 1)
    counts = f"onnxruntime {onnxruntime.__version__}: 0, onnx.reference {onnx.__version__}: 1"
    assert f"1 of 320 outputs differ ({counts}" in str(report)
    ana_fx.export(program, path, target="integer")
    with pytest.raises(ana_fx.VerifyError, match=r"output 0 in onnx\.reference differs from the program at 1 of 160"):
        ana_fx.verify(program, path, runtimes=["onnx.reference"])


def test_the_reference_pools_integers_by_floats_that_hold_them():
    model = written(Chain, "int4", to="integer")
    x = np.arange(3 * 100, dtype=np.uint8).reshape(1, 3, 10, 10) % 16
    found = [RUNTIMES[name].run(model, {"x": x})[0] for name in ("onnxruntime", "onnx.reference")]
    assert np.array_equal(*found)
