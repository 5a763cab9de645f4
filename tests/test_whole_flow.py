"""From a float model to files in their runtimes: no integer differs anywhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx import IntegerType
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.text.patterns import matches
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
from tests.pair_model import extreme_inputs, largest_pair_sums

NETWORKS = [Chain, Residual, Depthwise, OneDimensional, Shared, Volume]
PRECISIONS = {
    "binary": "binary",
    "one bit beside wider ones": ana_fx.Precision("bipolar", "uint1", overrides={"*conv2*": "int8", "*.0": "int4"}),
    "five levels": ana_fx.Precision(IntegerType.of_levels([-4, -1, 0, 1, 4]), IntegerType.of_levels([0, 1, 3, 8])),
    "ternary": "ternary",
    "all-ternary": "all-ternary",
    "int2": "int2",
    "int4": "int4",
    "int8": "int8",
    "mixed": ana_fx.Precision("int3", "uint6", overrides={"*conv2*": "int8", "*head*": "int8", "*.0": "ternary"}),
}


def with_rounding(precision: ana_fx.Precision | str, rounding: str) -> ana_fx.Precision:
    base = ana_fx.Precision.parse(precision)
    overrides = {key: with_rounding(value, rounding) for key, value in base.overrides.items()}
    return ana_fx.Precision(
        base.weight, base.activation, base.input, base.output, rounding=rounding, overrides=overrides
    )


def fitting(precision: ana_fx.Precision | str, paths: Collection[str]) -> ana_fx.Precision:
    """The precision without the overrides that match none of the layer maps, which `prepare` refuses."""
    precision = ana_fx.Precision.parse(precision)
    overrides = {
        pattern: other
        for pattern, other in precision.overrides.items()
        if any(matches(path, pattern) for path in paths)
    }
    return replace(precision, overrides=overrides)


def trained(kind: type[nn.Module], precision: ana_fx.Precision | str, *, awkward: bool) -> GraphModule:
    """After real training steps; awkward networks have awkward batch norms and signed inputs."""
    model = make_awkward(kind()) if awkward else kind()
    x = example(kind, signed=awkward)
    qat = ana_fx.prepare(model, x, precision=fitting(precision, ana_fx.annealing_ranges(ana_fx.prepare(model, x))))
    train(qat, INPUT_SHAPES[kind], 3, signed=awkward)
    return qat.eval()


def sessions(path: Path) -> list[onnxruntime.InferenceSession]:
    """The file on one thread and on two."""
    made = []
    for threads in (1, 2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        made.append(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    return made


def assert_no_integer_differs(qat: GraphModule, x: torch.Tensor, folder: Path) -> int:
    """Compare eval mode, program and both files at every batch size; how many outputs were compared."""
    integer = ana_fx.convert(qat)
    with torch.no_grad():
        expected = qat(x)
        assert torch.equal(expected, integer(x))
        assert torch.equal(expected[:7], qat(x[:7]))
    for target in ("onnxruntime", "integer"):
        path = folder / f"{target}.onnx"
        ana_fx.export(integer, path, target=target, io="float")
        for session in sessions(path):
            for batch in (1, 7, 64, len(x)):
                (found,) = session.run(None, {session.get_inputs()[0].name: x[:batch].numpy()})
                np.testing.assert_array_equal(found, expected[:batch].numpy())
        ana_fx.export(integer, path, target=target, io="integer")
        ana_fx.verify(integer, path)
        assert_no_pair_saturates(path)
    return expected.numel()


def assert_no_pair_saturates(path: Path) -> None:
    """Wherever it runs: no two products that some kernel adds in 16 bits leave these, on any processor."""
    model = onnx.load(path)
    assert max(largest_pair_sums(model, extreme_inputs(model)).values(), default=0) <= PAIR_LIMIT


@pytest.mark.parametrize("awkward", [False, True], ids=["tame", "awkward"])
@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_integer_differs(kind, precision, awkward, tmp_path):
    assert_no_integer_differs(trained(kind, precision, awkward=awkward), example(kind, 64, signed=awkward), tmp_path)


@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_when_thresholds_stand_at_their_levels(kind, tmp_path):
    qat = trained(kind, with_rounding("int4", "floor"), awkward=True)
    assert_no_integer_differs(qat, example(kind, 64, signed=True), tmp_path)


@pytest.mark.slow
def test_no_integer_differs_in_a_million_outputs(tmp_path):
    num_compared = 0
    for kind in NETWORKS:
        for precision in PRECISIONS.values():
            for rounding in ("nearest", "floor"):
                for awkward in (False, True):
                    qat = trained(kind, with_rounding(precision, rounding), awkward=awkward)
                    x = example(kind, 1024, signed=awkward)
                    num_compared += assert_no_integer_differs(qat, x, tmp_path)
    assert num_compared >= 1_000_000
