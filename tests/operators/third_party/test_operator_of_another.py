"""The errand of who adds an operator: its class, a writer, a target and two entry points, in a package of its own.

This covers `operators/operator_list.py` too.
"""

import pytest
import torch
from torch import nn

import ana_fx
from tests.operators.third_party.absolute_difference import absolute_difference


class Contrast(nn.Module):
    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 5, padding=2)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.head(absolute_difference(self.near(x), self.far(x)).flatten(1))


@pytest.fixture
def installed(install):
    here = "tests.operators.third_party.absolute_difference"
    install("difference_operator", f"{here}:AbsoluteDifference", "ana_fx.operators")
    install("difference_target", f"{here}:TARGET")


def prepared(target):
    x = torch.randn(8, 1, 6, 6)
    return ana_fx.prepare(
        Contrast(), x, target=target, calibration=[x], wrapped_functions=[absolute_difference], schedule="ste"
    )


def test_it_trains_converts_and_every_bit_of_its_file_is_equal(installed, tmp_path):
    qat = prepared("difference").train()
    qat(torch.randn(8, 1, 6, 6)).square().mean().backward()
    program = ana_fx.convert(qat)
    report = ana_fx.export(program, tmp_path / "model.onnx")
    assert "Abs" in [node.operator for node in report.nodes]
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


def test_a_target_that_does_not_have_it_refuses_it_by_name(installed):
    with pytest.raises(ana_fx.PrecisionError, match=r"it is an absolute_difference, needed one of"):
        prepared("onnxruntime")


def test_without_the_package_the_function_is_refused_by_name():
    with pytest.raises(ana_fx.UnsupportedError, match=r"absolute_difference\(\) has no integer form"):
        prepared("onnxruntime")


def test_an_entry_point_that_is_no_operator_is_refused(install):
    install("odd_operator", "math:pi", "ana_fx.operators")
    with pytest.raises(TypeError, match=r"'math:pi' of ana_fx.operators is float, needed a subclass of Operator"):
        prepared("onnxruntime")
