"""Where MUL is proven, and what is written where it is not.

Of tflite/write_pairs.py too.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import ExportError
from ana_fx.graph import module_of
from ana_fx.operators.product import Product
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.tensor_spec import spec_of
from ana_fx.requantizers.requantizer import Requantizer
from ana_fx.targets.tflite.muls import mul_scale
from ana_fx.targets.tflite.tflite_file import read_tflite
from tests.targets.tflite.test_tflite_program import program, written


class Gated(nn.Module):
    """A tensor times another one of its size, or of one number for each channel; a norm may follow."""

    def __init__(self, *, is_broadcast=False, has_norm=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.is_broadcast = is_broadcast
        self.norm = nn.BatchNorm2d(4) if has_norm else nn.Identity()

    def forward(self, x):
        gate = torch.relu(self.second(x))
        if self.is_broadcast:
            gate = gate.mean((2, 3), keepdim=True)
        return self.norm(torch.relu(self.first(x)) * gate)


def product(integer):
    """The product of a program, and the scales of its tensors."""
    for node in integer.graph.nodes:
        module = module_of(node)
        if isinstance(module, IntegerMap) and isinstance(module.operator, Product):
            first, second = (np.float32(spec_of(each).levels.scale) for each in node.args)
            return module, (first, second)
    raise AssertionError


@pytest.mark.parametrize(
    ("target", "requantizer"), [("litert", Requantizer.XNNPACK), ("tflite-micro", Requantizer.Q31)]
)
@pytest.mark.parametrize("is_broadcast", [False, True])
def test_a_product_for_one_formula_is_mul(target, requantizer, is_broadcast, tmp_path):
    model = Gated(is_broadcast=is_broadcast)
    assert mul_scale(*product(program(model, 1, 8, 8, target=target)), requantizer) is not None
    operators = written(tmp_path, model, 1, 8, 8, target=target).contents().operators
    assert operators["MUL"] == 1
    assert "GATHER" not in operators


def test_a_product_that_kernels_round_differently_is_a_table(tmp_path):
    model = Gated()
    module, scales = product(program(model, 1, 8, 8, target="tflite"))
    assert mul_scale(module, scales, Requantizer.EVERY_TFLITE) is None
    assert mul_scale(module, scales, Requantizer.XNNPACK) is not None
    file = written(tmp_path, model, 1, 8, 8, target="tflite")
    assert file.contents().operators.keys() >= {"CAST", "MUL", "GATHER"}
    (table,) = (each for each in file.graph["tensors"] if each["name"] == "mul.table")
    assert table["shape"].tolist() == [255 * 255 + 1]


def test_mul_takes_the_trained_scale_where_its_own_gives_another_level():
    """Another second scale by some digits: its own products are not the trained ones, which the trained scale gives."""
    module, (first, second) = product(program(Gated(), 1, 8, 8, target="litert"))
    trained = np.float32(float(module.staircase.weight_scale))
    assert mul_scale(module, (first, np.float32(second * 1.01)), Requantizer.XNNPACK) == trained
    assert mul_scale(module, (np.float32(first * 1.01), second), Requantizer.XNNPACK) is None


def test_a_product_that_was_trained_for_other_kernels_is_a_table(tmp_path):
    integer = program(Gated(), 1, 8, 8, target="litert")
    module, scales = product(integer)
    assert mul_scale(module, scales, Requantizer.Q31) is None


def test_channels_with_numbers_of_their_own_have_tables_of_their_own(tmp_path):
    file = written(tmp_path, Gated(has_norm=True), 1, 8, 8, precision="int4")
    (table,) = (each for each in file.graph["tensors"] if each["name"].endswith(".table"))
    assert table["shape"].tolist() == [4 * (15 * 15 + 1)]


def test_a_table_that_is_too_large_is_refused(tmp_path):
    integer = program(Gated(has_norm=True), 1, 8, 8)
    with pytest.raises(ExportError, match=r"needs a table of 260104 levels, .* needed at most 65536; leave out the"):
        ana_fx.export(integer, tmp_path / "m.tflite")


class Moved(nn.Module):
    """A tensor plus, or minus three times, one number of each channel."""

    def __init__(self, factor):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.factor = factor

    def forward(self, x):
        return self.first(x) + self.factor * self.second(x).mean((2, 3), keepdim=True)


@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_sums_that_broadcast_are_written(factor, tmp_path):
    operators = written(tmp_path, Moved(factor), 1, 8, 8).contents().operators
    assert operators["ADD"] >= 1
    assert "TRANSPOSE" not in operators


class Inputs(nn.Module):
    """Two inputs, the second of which broadcasts."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, y):
        return self.function(x, y)


@pytest.mark.extra("tflite", "tflite_micro")
@pytest.mark.parametrize("function", [torch.add, torch.mul, torch.maximum, torch.minimum])
def test_pairs_of_another_formula_are_tables(function, tmp_path):
    """A staircase of integer shifts is no formula of a kernel, but every table is one."""
    inputs = (torch.randn(8, 4), torch.randn(8, 1))
    precision = ana_fx.Precision("int8", "uint8", input="int8", output="int8")
    qat = ana_fx.prepare(Inputs(function), inputs, precision=precision, target="integer", calibration=[inputs])
    integer = ana_fx.convert(qat.eval())
    ana_fx.export(integer, tmp_path / "m.tflite", target="tflite-micro")
    assert "GATHER" in read_tflite(tmp_path / "m.tflite").contents().operators
    assert ana_fx.verify(integer, tmp_path / "m.tflite", inputs, runtimes=["tflite-micro"]).num_different == 0
