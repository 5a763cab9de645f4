"""Prepared, converted and exported networks, made once for all tests; a test that changes one takes a copy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.graph import quantizers
from tests.models import example, make_awkward


@cache
def trained(
    kind: type[nn.Module],
    precision: str = "int4",
    *,
    rounding: str = "nearest",
    awkward: bool = False,
    target: str = "onnxruntime",
) -> GraphModule:
    """A prepared network that has seen one training batch, in eval mode."""
    preset = ana_fx.Precision.parse(precision)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_awkward(kind()) if awkward else kind()
        qat = ana_fx.prepare(
            model,
            example(kind, signed=awkward),
            precision=ana_fx.Precision(preset.weight, preset.activation, rounding=rounding),
            target=target,
        )
        qat.train()(example(kind, signed=awkward))
    return qat.eval()


def calibrated(model: nn.Module, x: Tensor, **settings: object) -> GraphModule:
    """A prepared network whose scales are those of one batch, in eval mode."""
    return ana_fx.prepare(model, x, calibration=[x], **settings).eval()


def settled(qat: GraphModule) -> GraphModule:
    """The same with a scale for each quantizer that saw nothing but zeros, as a user has to tell it."""
    for _, quantizer in quantizers(qat):
        if not quantizer.is_calibrated:
            quantizer.set_scale(torch.ones_like(quantizer.scale))
    return qat


@cache
def converted(kind: type[nn.Module], precision: str = "int4", **settings: object) -> GraphModule:
    """Its integer program."""
    return ana_fx.convert(trained(kind, precision, **settings))


@cache
def written(
    kind: type[nn.Module],
    precision: str = "int4",
    *,
    to: str = "onnxruntime",
    io: str = "integer",
    **settings: object,
) -> onnx.ModelProto:
    """The file of its integer program for the target `to`."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ana_fx.export(converted(kind, precision, **settings), path, target=to, io=io)
        return onnx.load(path)
