"""The larger and the smaller of two tensors (`maximum.py`, `minimum.py`), from their integers to the file.

This covers `operators/minimum.py` too.
"""

import itertools

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.operators.coefficients import Operands
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum

LEVELS = [((-128, 127), (0, 255)), ((0, 255), (0, 255)), ((-1, 1), (0, 3))]


@pytest.mark.parametrize("operator", [Maximum(), Minimum()], ids=lambda each: each.kind)
@pytest.mark.parametrize("levels", LEVELS)
def test_the_range_is_reached_at_its_corners_or_is_level_0(operator, levels):
    weight = torch.tensor([127, 64])
    low, high = (int(end) for end in operator.accumulator_range(weight, levels, (2, 3)))
    corners = [operator.accumulate(tuple(map(torch.tensor, ends)), weight) for ends in itertools.product(*levels)]
    assert (low, high) == (min(0, *map(int, corners)), max(0, *map(int, corners)))
    assert max(-low, high) <= operator.bound([max(-lo, hi) for lo, hi in levels], (2, 3))


@pytest.mark.parametrize("operator", [Maximum(), Minimum()], ids=lambda each: each.kind)
def test_levels_of_one_scale_are_compared_exactly(operator):
    x, y = torch.randint(-128, 128, (2, 50)), torch.randint(-128, 128, (2, 50))
    scale = torch.tensor(0.5)
    found = operator.coefficients(Operands((scale, scale), (2, 50), output_scale=scale))
    accumulator = operator.accumulate((x, y), found.integers.long())
    assert torch.equal(accumulator, 127 * operator.real((x, y), None))


class Peaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 1)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        y, z = torch.relu(self.first(x)), self.second(x)
        return self.head(torch.maximum(y, z).minimum(y + z).flatten(1))


@pytest.mark.parametrize("precision", ["ternary", "int8"])
@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
def test_files_are_exact(precision, target, tmp_path):
    x = torch.randn(16, 1, 6, 6)
    qat = ana_fx.prepare(Peaks(), x, precision=precision, target=target, calibration=[x], schedule="ste")
    program = ana_fx.convert(qat)
    report = ana_fx.export(program, tmp_path / "model.onnx")
    assert {"Max", "Min"} <= {node.operator for node in report.nodes}
    assert ana_fx.verify(program, tmp_path / "model.onnx").num_different == 0


def test_a_target_without_them_refuses_them():
    with pytest.raises(ana_fx.PrecisionError, match=r"it is a maximum, needed one of"):
        ana_fx.prepare(Peaks(), torch.randn(2, 1, 6, 6), target="deeploy")
