"""What a description cannot hold of a program."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.target_registry import target_called
from ana_fx.targets import export as export_module
from ana_fx.targets.program_needs import program_misfits
from tests.models import Chain, Residual, Volume
from tests.programs import converted

INTEGER = target_called("integer")


@pytest.mark.parametrize("kind", [Chain, Residual, Volume])
def test_the_integer_target_holds_every_program(kind):
    assert program_misfits(converted(kind), INTEGER) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"weight_bits": (2, 3)}, "weights have 4 bits"),
        ({"activation_bits": (2, 3)}, "its output has 4 bits (uint4), needed 2 to 3"),
        ({"spatial_axes": frozenset({1})}, "it has 2 spatial axes, needed 1"),
        ({"operators": INTEGER.operators - {"movement"}}, "it is a movement"),
        ({"operators": INTEGER.operators - {"max_pool"}}, "it is a max_pool"),
        ({"accumulator_bits": 8}, "its accumulator can reach"),
        ({"per_channel": False}, "its channels have slopes of their own"),
    ],
)
def test_each_limit_is_checked(limits, reason):
    misfits = program_misfits(converted(Chain), replace(INTEGER, **limits))
    assert any(reason in misfit for misfit in misfits)
    assert all(misfit.startswith("module '") for misfit in misfits)


def test_an_export_lists_all_that_does_not_fit_and_writes_nothing(tmp_path, monkeypatch):
    small = replace(INTEGER, name="small", weight_bits=(2, 3))
    monkeypatch.setattr(export_module, "target_called", lambda name: small)
    with pytest.raises(ana_fx.ExportError, match="target 'small' cannot hold the program") as caught:
        ana_fx.export(converted(Chain), tmp_path / "a.onnx", target="small")
    assert str(caught.value).count("weights have 4 bits") > 1
    assert list(tmp_path.iterdir()) == []


def test_a_float_layer_is_refused_where_there_are_none():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    precision = ana_fx.Precision("int8", output="float")
    qat = ana_fx.prepare(model, torch.rand(8, 4), precision=precision, calibration=[torch.rand(8, 4)])
    (misfit,) = program_misfits(ana_fx.convert(qat), replace(INTEGER, holds_floats=False))
    assert "it stays in floats, needed integers" in misfit
