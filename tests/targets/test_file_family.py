"""A family of files that another package adds is exported, verified and inspected like ONNX."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.target import ONNX
from ana_fx.target_registry import target_called, targets
from ana_fx.targets.file_family import family_at, family_of
from ana_fx.targets.onnx.onnx_family import ONNX_FAMILY

pytestmark = pytest.mark.usefixtures("_installed")


@pytest.fixture
def _installed(install):
    install("json_family", "tests.targets.third_party.json_family:JSON_TARGET")


@pytest.fixture
def program():
    x = torch.randn(16, 4)
    return ana_fx.convert(ana_fx.prepare(nn.Linear(4, 3), x, target="json", calibration=[x]))


def test_its_files_are_written_and_every_number_is_equal(program, tmp_path):
    report = ana_fx.export(program, tmp_path / "model.json")
    assert report.companions == ("note.txt",)
    assert ana_fx.verify(program, tmp_path / "model.json").runtimes[0].startswith("numpy ")


def test_a_number_that_was_changed_is_found(program, tmp_path):
    ana_fx.export(program, tmp_path / "model.json")
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"bias": [', '"bias": [1'))
    with pytest.raises(ana_fx.VerifyError, match="differs from the program"):
        ana_fx.verify(program, tmp_path / "model.json")


def test_it_is_inspected(program, tmp_path):
    ana_fx.export(program, tmp_path / "model.json", labels=["a", "b", "c"])
    report = ana_fx.inspect(tmp_path / "model.json")
    assert (report.target, report.operators, report.labels) == ("json", {"linear": 1}, ("a", "b", "c"))


def test_what_it_cannot_hold_is_refused_with_its_place(tmp_path):
    x = torch.randn(16, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    program = ana_fx.convert(ana_fx.prepare(model, x, target="json", calibration=[x]))
    with pytest.raises(ana_fx.ExportError, match=r"module '0'.*it is no last layer"):
        ana_fx.export(program, tmp_path / "model.json")


@pytest.mark.parametrize(("target", "name"), [("json", "model.onnx"), ("integer", "model.json")])
def test_a_name_of_another_family_is_refused(program, target, name, tmp_path):
    with pytest.raises(ValueError, match=f"files of target '{target}' end with"):
        ana_fx.export(program, tmp_path / name, target=target)


def test_a_file_of_any_other_name_is_onnx(tmp_path):
    assert family_at(tmp_path / "model.bin") is family_at(tmp_path / "MODEL.ONNX") is ONNX_FAMILY
    assert all(family_of(target) is ONNX_FAMILY for target in targets() if target.file_format == ONNX)


def test_its_runtimes_are_its_own(program, tmp_path):
    ana_fx.export(program, tmp_path / "model.json")
    with pytest.raises(ValueError, match="unknown runtime 'onnxruntime'"):
        ana_fx.verify(program, tmp_path / "model.json", runtimes=["onnxruntime"])
    assert target_called("json").runtimes == ("numpy",)
