"""Levels of a codebook as comparisons of accumulators: equal in both runtimes, with even jumps and uneven ones."""

import onnx
import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.errors import PrecisionError
from tests.models import Chain, example

CODEBOOKS = {"one bit": (0, 1), "even": (0, 2, 4, 6), "uneven": (0, 1, 4, 9), "signed": (-3, -1, 1, 3)}


@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
@pytest.mark.parametrize("levels", CODEBOOKS.values(), ids=CODEBOOKS)
def test_levels_of_a_codebook_are_exact(levels, target, tmp_path):
    x, precision = example(Chain), ana_fx.Precision("int4", ana_fx.IntegerType.of_levels(levels))
    program = ana_fx.convert(ana_fx.prepare(Chain(), x, precision=precision, target=target, calibration=[x]))
    ana_fx.export(program, tmp_path / "model.onnx")
    assert "Less" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0


OF_CHANNELS = ana_fx.Precision(
    "int4",
    "uint4",
    overrides={
        "0": ana_fx.Precision(
            "int4", ana_fx.IntegerType.of_levels([-1, 0, 2], [[-0.1 * k - 0.3, k] for k in range(8)])
        ),
        "3": ana_fx.Precision("ternary", ana_fx.IntegerType.of_levels([[0, 1, 3], [0, 5], [0, 2, 4]] * 2)),
        "6": ana_fx.Precision("int4", ana_fx.IntegerType.of_levels([0, 1, 2], [[0.1 * k, 1 + k] for k in range(5)])),
    },
)


def network() -> nn.Sequential:
    """A convolution with a batch norm, one without, and a linear layer."""
    first = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*first, nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.Linear(5, 4))


@pytest.mark.parametrize("target", ["onnxruntime", "integer", "qdq"])
def test_channels_with_levels_and_thresholds_of_their_own_are_exact(target, tmp_path):
    x = torch.randn(32, 3, 8, 8)
    qat = ana_fx.prepare(network(), x, precision=OF_CHANNELS, target=target, calibration=[x])
    qat.train()(x).square().mean().backward()
    with torch.no_grad():
        for parameter in qat.parameters():
            parameter.sub_(0.1 * parameter.grad if parameter.grad is not None else 0.0)
    again = ana_fx.prepare(network(), x, precision=OF_CHANNELS, target=target)
    again.load_state_dict(qat.state_dict())
    program = ana_fx.convert(again)
    ana_fx.export(program, tmp_path / "model.onnx")
    assert ana_fx.verify(program, tmp_path / "model.onnx", x).num_different == 0
    ana_fx.save(program, tmp_path / "program.safetensors")
    assert torch.equal(ana_fx.load(tmp_path / "program.safetensors")(x), program(x))


def test_thresholds_of_other_channels_are_refused_by_the_layer():
    of_three = ana_fx.IntegerType.of_levels([0, 1], [[0.1], [0.2], [0.3]])
    with pytest.raises(PrecisionError, match=r"module '0'.*found 8 channels and thresholds for each of 3"):
        ana_fx.prepare(network(), torch.rand(2, 3, 8, 8), precision=ana_fx.Precision("int4", of_three))


def test_thresholds_of_channels_are_no_weights():
    with pytest.raises(ValueError, match="weights have a scale for each channel"):
        ana_fx.Precision(ana_fx.IntegerType.of_levels([-1, 1], [[0.1], [0.2]]))
