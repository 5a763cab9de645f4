"""From a float model to files in their runtimes: no integer differs anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import ana_fx
from tests.models import (
    INPUT_SHAPES,
    Chain,
    Depthwise,
    OneDimensional,
    Residual,
    Shared,
    Volume,
    example,
    make_awkward,
    train,
)

NETWORKS = [Chain, Residual, Depthwise, OneDimensional, Shared, Volume]
PRECISIONS = {
    "ternary": "ternary",
    "all-ternary": "all-ternary",
    "int2": "int2",
    "int4": "int4",
    "int8": "int8",
    "mixed": ana_fx.Precision("int3", "uint6", overrides={"*conv2*": "int8", "*head*": "int8", "*.0": "ternary"}),
}
PER_RUN = 512


def with_rounding(precision: ana_fx.Precision | str, rounding: str) -> ana_fx.Precision:
    base = ana_fx.Precision.parse(precision)
    overrides = {key: with_rounding(value, rounding) for key, value in base.overrides.items()}
    return ana_fx.Precision(
        base.weight, base.activation, base.input, base.output, rounding=rounding, overrides=overrides
    )


def trained(
    kind: type[nn.Module], precision: ana_fx.Precision | str, *, awkward: bool, signed: bool
) -> torch.fx.GraphModule:
    model = make_awkward(kind()) if awkward else kind()
    qat = ana_fx.prepare(model, example(kind, signed=signed), precision=precision)
    train(qat, INPUT_SHAPES[kind], 3, signed=signed)
    return qat.eval()


def sessions(path: Path) -> list[onnxruntime.InferenceSession]:
    made = []
    for threads in (1, 2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        made.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    return made


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_integer_differs(kind, precision, rounding, tmp_path):
    for awkward in (False, True):
        qat = trained(kind, with_rounding(precision, rounding), awkward=awkward, signed=awkward)
        integer = ana_fx.convert(qat)
        x = example(kind, PER_RUN, signed=awkward)
        with torch.no_grad():
            expected = qat(x)
            assert torch.equal(expected, integer(x))
            assert torch.equal(expected[:1], qat(x[:1]))
        for target in ("onnxruntime", "integer"):
            path = tmp_path / f"{target}.onnx"
            ana_fx.export(integer, path, target=target, io="float")
            for session in sessions(path):
                for batch in (1, 7, 64, PER_RUN):
                    (found,) = session.run(None, {session.get_inputs()[0].name: x[:batch].numpy()})
                    np.testing.assert_array_equal(found, expected[:batch].numpy())
            ana_fx.export(integer, path, target=target, io="integer")
            ana_fx.verify(integer, path, x[:64])
            ana_fx.verify(integer, path)
