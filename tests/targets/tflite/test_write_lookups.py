"""Tables and softmax in all kernels: every level is the program's.

Of tflite/write_softmax.py too.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from ana_fx.graph import module_of
from ana_fx.layers.table_map import Elementwise
from ana_fx.program.integer_modules import IntegerSoftmax, IntegerTable
from ana_fx.targets.tflite.tflite_file import read_tflite
from ana_fx.targets.tflite.tflite_runtimes import TFLITE_RUNTIMES

KERNELS = [
    pytest.param("litert", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("litert-builtin", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("litert-reference", marks=pytest.mark.extra("tflite", "ai_edge_litert")),
    pytest.param("tflite-micro", marks=pytest.mark.extra("tflite", "tflite_micro")),
]
FUNCTIONS = {
    "hardswish": nn.Hardswish(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "cos": Elementwise(torch.cos),
    "prelu": nn.PReLU(3),
}


def program(model, x, precision="int8"):
    return ana_fx.convert(ana_fx.prepare(model, x, precision=precision, target="tflite", calibration=[x]).eval())


def only(integer, kind):
    """The one module of that kind."""
    (found,) = (module_of(node) for node in integer.graph.nodes if isinstance(module_of(node), kind))
    return found


def ran(integer, runtime, folder, levels):
    """What the file makes of levels."""
    ana_fx.export(integer, folder / "m.tflite")
    file = read_tflite(folder / "m.tflite")
    (found,) = file.run(TFLITE_RUNTIMES[runtime], {"x": levels.numpy()}).outputs
    return torch.from_numpy(found)


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("runtime", KERNELS)
def test_each_of_256_levels_has_the_entry_of_the_table(runtime, name, precision, tmp_path):
    x = torch.linspace(-3, 3, 3 * 256).reshape(1, 256, 3).transpose(1, 2).contiguous()
    integer = program(nn.Sequential(FUNCTIONS[name]), x, precision)
    table = only(integer, IntegerTable)
    levels = torch.arange(-128, 128).to(torch.int8).expand(1, 3, 256)
    assert torch.equal(ran(integer, runtime, tmp_path, levels), table(levels))


@pytest.mark.parametrize(("axis", "shape"), [(1, (1, 40)), (1, (1, 5, 4, 3)), (3, (1, 5, 4, 3)), (2, (1, 1, 1))])
@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("runtime", KERNELS)
def test_softmax_is_the_formula_of_the_program(runtime, rounding, axis, shape, tmp_path):
    x = torch.randn(shape) * 4
    precision = ana_fx.Precision("int8", "uint8", input="int8", rounding=rounding)
    integer = program(nn.Sequential(nn.Softmax(axis)), x, precision)
    softmax = only(integer, IntegerSoftmax)
    levels = torch.from_numpy(np.random.default_rng(0).integers(-128, 128, (50, *shape[1:]), np.int8))
    levels[:2] = torch.tensor([-128, 127], dtype=torch.int8).reshape(2, *[1] * (len(shape) - 1))
    assert torch.equal(ran(integer, runtime, tmp_path, levels), softmax(levels))


class Attention(nn.Module):
    """Positions weighted by what is seen there."""

    def __init__(self):
        super().__init__()
        self.values, self.score = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 1, 1)

    def forward(self, x):
        weights = F.softmax(self.score(x).flatten(2), 2).reshape(-1, 1, 5, 5)
        return (F.gelu(self.values(x)) * weights).sum((2, 3), keepdim=True)


@pytest.mark.parametrize("runtime", KERNELS)
def test_they_stand_together(runtime, tmp_path):
    x = torch.randn(4, 2, 5, 5)
    integer = program(Attention(), x)
    ana_fx.export(integer, tmp_path / "m.tflite")
    assert ana_fx.verify(integer, tmp_path / "m.tflite", torch.cat([x, 3 * x]), runtimes=[runtime]).num_different == 0


def test_a_table_costs_three_operators(tmp_path):
    integer = program(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Hardswish()), torch.randn(2, 2, 5, 5))
    ana_fx.export(integer, tmp_path / "m.tflite")
    operators = read_tflite(tmp_path / "m.tflite").contents().operators
    assert operators == {"CONV_2D": 1, "CAST": 1, "ADD": 1, "GATHER": 1}
