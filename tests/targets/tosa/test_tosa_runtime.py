"""Files in Arm's reference model, where no output differs, and in the validator of TOSA's MLIR dialect.

Of tosa/reference_process.py too, and tosa/tosa_file.py, which brings integers into the file's order and back.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ana_fx
from ana_fx.errors import VerifyError
from ana_fx.targets.command_line import app
from ana_fx.targets.files.pack_tables import pack_tables
from ana_fx.targets.tosa.reference_process import outputs_of
from ana_fx.targets.tosa.tosa_family import TOSA_FAMILY
from ana_fx.targets.tosa.tosa_file import read_tosa
from ana_fx.targets.tosa.tosa_schema import TOSA_SCHEMA, Op
from benchmarks.tosa import is_valid
from tests.targets.channels_last.layout_networks import NETWORKS, trained_program

reference_model = pytest.mark.extra("tosa", "tosa_reference_model")
PRECISIONS = ("ternary", "int4", "int8")
program = cache(trained_program)


def changed(file, change):
    """The bytes of a file in which something is changed."""
    change(file.block)
    return pack_tables(TOSA_SCHEMA, file.graph)


@reference_model
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_output_differs_and_the_integer_profile_has_all_of_it(name, precision, tmp_path):
    integer, x = program("tosa", name, precision)
    ana_fx.export(integer, tmp_path / "m.tosa")
    for inputs in (x, None):  # None: extreme and random levels
        assert ana_fx.verify(integer, tmp_path / "m.tosa", inputs).num_different == 0
    assert is_valid(tmp_path / "m.tosa")


@reference_model
def test_the_validator_refuses_what_the_specification_does(tmp_path):
    """So that the test above could fail."""
    integer, _ = program("tosa", "residual", "int8")
    ana_fx.export(integer, tmp_path / "m.tosa")

    def round_twice(block):
        rescale = next(each for each in block["operators"] if each["op"] == Op.RESCALE)
        rescale["attribute"][1]["rounding_mode"] = 3  # an extension

    (tmp_path / "m.tosa").write_bytes(changed(read_tosa(tmp_path / "m.tosa"), round_twice))
    assert not is_valid(tmp_path / "m.tosa")


@reference_model
def test_a_weight_that_was_changed_is_seen(tmp_path):
    integer, x = program("tosa", "residual", "int8")
    ana_fx.export(integer, tmp_path / "m.tosa")

    def change(block):
        weight = next(each for each in block["tensors"] if each["name"].endswith("weight"))
        weight["data"] = bytes(np.frombuffer(weight["data"], np.int8) // 2)

    (tmp_path / "m.tosa").write_bytes(changed(read_tosa(tmp_path / "m.tosa"), change))
    with pytest.raises(VerifyError, match="in tosa-reference-model differs from the program"):
        ana_fx.verify(integer, tmp_path / "m.tosa", x)


@reference_model
def test_what_the_reference_model_says_of_a_file_is_told(capfd):
    with pytest.raises(ValueError, match=r"TOSA graph data is invalid.*Invalid TOSA graph"):
        outputs_of(b"something else", {"x": np.zeros((1, 2), np.int8)})
    assert capfd.readouterr() == ("", "")


@reference_model
def test_the_command_line_reads_and_verifies_files(tmp_path):
    integer, _ = program("tosa", "residual", "int8")
    ana_fx.export(integer, tmp_path / "m.tosa")
    ana_fx.save(integer, tmp_path / "m.afx")
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.tosa")])
    assert "target tosa" in shown.output
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "m.tosa"), "--against", str(tmp_path / "m.afx")])
    assert (done.exit_code, "tosa-reference-model" in done.output) == (0, True), done.output


def test_a_runtime_that_is_not_installed_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tosa_reference_model", None)
    with pytest.raises(VerifyError, match=r"install ana_fx\[tosa\]"):
        TOSA_FAMILY.runtime("tosa-reference-model")


@reference_model
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more"), [(1, 2, 1, 1), (2, 3, 3, 0), (3, 2, 0, 1), (2, 3, 0, 2)]
)
def test_a_transposed_convolution_may_drop_more_than_its_kernel(kernel, stride, padding, more, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 2, kernel, stride, padding, more))
    qat, x = ana_fx.prepare(model, torch.rand(2, 1, 9, 8), target="tosa"), torch.rand(4, 1, 9, 8)
    qat.train()(x)
    integer = ana_fx.convert(qat.eval())
    ana_fx.export(integer, tmp_path / "m.tosa")
    assert ana_fx.verify(integer, tmp_path / "m.tosa", x).num_different == 0
    assert is_valid(tmp_path / "m.tosa")
    assert "TRANSPOSE_CONV2D" in read_tosa(tmp_path / "m.tosa").contents().operators
