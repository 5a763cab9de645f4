"""The last guard behind the proofs: the program runs on what the trained model ran on."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.passes.base_pass import Pass
from ana_fx.passes.lowering.lowered_graph import PROGRAM
from ana_fx.passes.lowering.recording import run
from tests.models import Chain
from tests.programs import trained


class Tamper(Pass):
    """Changes one weight of the layer map at `hidden`."""

    name = "tamper"
    requires = ensures = PROGRAM

    def run(self, gm: GraphModule) -> bool:
        gm.get_submodule("hidden").weight[0, 0] += 64
        return True


def test_the_last_guard_names_the_first_node_that_differs(monkeypatch):
    monkeypatch.setattr("ana_fx.passes.convert.Prove", Tamper)
    with pytest.raises(ana_fx.MismatchError, match=r"module 'hidden'.*differs.* found .*, needed .*report it"):
        ana_fx.convert(trained(Chain))


def test_logits_above_two_to_the_24_are_compared_as_floats(tmp_path):
    model = nn.Sequential(nn.Linear(2001, 3, bias=False))
    model[0].weight.data.copy_(1.0 + torch.arange(6003).reshape(3, 2001) / 6003)
    x = torch.ones(2, 2001) - torch.arange(2001) / 4002
    qat = ana_fx.prepare(model, x, calibration=[x]).eval()
    program = ana_fx.convert(qat)
    logits = run(program, (x,))
    assert max(int(y.abs().max()) for y in logits.values() if y.dtype is torch.int32) > 2**24
    assert torch.equal(program(x), qat(x))
    ana_fx.export(program, tmp_path / "a.onnx")
    assert ana_fx.verify(program, tmp_path / "a.onnx", x).num_different == 0
