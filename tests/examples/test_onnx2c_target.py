"""The example of a target that is a package."""

import sys
from pathlib import Path

import onnx
import pytest

import ana_fx
from tests.models import Chain, Residual, example

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parents[2] / "examples" / "onnx2c_target"


@pytest.fixture
def _installed(tmp_path, monkeypatch):
    """As pip leaves it: importable, and with the entry points of its pyproject.toml."""
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    info = tmp_path / "onnx2c_target-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = project["entry-points"]["ana_fx.targets"]
    (info / "entry_points.txt").write_text("\n".join(["[ana_fx.targets]", *(f"{k} = {v}" for k, v in entries.items())]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("kind", [Chain, Residual])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
def test_its_files_are_equal_and_cast_to_no_byte(kind, precision, tmp_path):
    x = example(kind)
    qat = ana_fx.prepare(kind(), x, precision=precision, target="onnx2c", calibration=[x])
    program, path = ana_fx.convert(qat.eval()), tmp_path / "model.onnx"
    report = ana_fx.export(program, path)
    assert report.target == "onnx2c"
    nodes = onnx.load(path).graph.node
    casts = [node.attribute[0].i for node in nodes if node.op_type == "Cast"]
    assert not {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} & set(casts)
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    assert ana_fx.verify(program, path, x, runtimes=["onnxruntime", "onnx.reference"]).num_different == 0


@pytest.mark.usefixtures("_installed")
def test_it_is_listed():
    assert [target.name for target in ana_fx.targets()][-1] == "onnx2c"
