"""Random chains of operators, drawn by hypothesis, for files whose images lie with their channels last."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import torch
from hypothesis import strategies as st
from torch import nn

import ana_fx
from ana_fx.target_registry import target_called
from tests.test_random_graphs import REFUSALS, lossless_program


@torch.no_grad()
def check_lossless(model, x, precision, target):
    """Written too, the network gives the same bits in all kernels that the target names."""
    program, inputs = lossless_program(model, x, precision, target)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"m{target_called(target).file_format.suffix}"
        ana_fx.export(program, path)
        assert ana_fx.verify(program, path, inputs).num_different == 0


def explore(drawn, precision, target):
    try:
        check_lossless(*drawn, precision, target)
    except (*REFUSALS, ana_fx.PrecisionError, ana_fx.ExportError) as error:
        refusal = str(error)
    else:
        return
    assert "needed" in refusal


class Chain(nn.Module):
    """Functions, gates, sums that broadcast and upsamplings, in a drawn order, on four channels."""

    MAKES: ClassVar = {
        "table": lambda draw: draw(
            st.sampled_from([nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Tanh, lambda: nn.PReLU(4)])
        )(),
        "convolution": lambda draw: nn.Conv2d(4, 4, 3, padding=1, groups=draw(st.sampled_from([1, 2, 4]))),
        "transposed": lambda draw: _transposed(draw),
        "nearest": lambda draw: nn.Upsample(scale_factor=draw(st.sampled_from([2, 3, (1, 2)]))),
        "softmax": lambda draw: nn.Softmax(draw(st.integers(1, 3))),
        "gate": lambda draw: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid()),
        "shift": lambda draw: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)),
    }

    def __init__(self, kinds, members):
        super().__init__()
        self.kinds = kinds
        self.first, self.members = nn.Conv2d(2, 4, 3, padding=1), nn.ModuleList(members)

    def forward(self, x):
        x = self.first(x)
        for kind, member in zip(self.kinds, self.members, strict=True):
            x = {"gate": lambda y, x=x: x * y, "shift": lambda y, x=x: x - y}.get(kind, lambda y: y)(member(x))
        return x


def _transposed(draw):
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding, more = draw(st.integers(0, (kernel - 1) // 2)), draw(st.integers(0, stride - 1))
    return nn.ConvTranspose2d(4, 4, kernel, stride, padding, more, groups=draw(st.sampled_from([1, 2, 4])))


@st.composite
def chains(draw):
    """A chain, and a batch of inputs."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kinds = draw(st.lists(st.sampled_from(sorted(Chain.MAKES)), min_size=1, max_size=4))
    return Chain(kinds, [Chain.MAKES[kind](draw) for kind in kinds]).eval(), torch.randn(3, 2, 3, 4)
