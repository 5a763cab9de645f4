"""Weights as bytes that every kernel multiplies exactly: the exported files against a model of pair sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx.numerics.pair_sums import PAIR_LIMIT
from ana_fx.target_registry import target_called
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.writers.weight_bytes import store_weight
from tests.models import Chain, Depthwise, OneDimensional, Residual, Shared
from tests.pair_model import extreme_inputs, largest_pair_sums
from tests.programs import converted, written

NETWORKS = [Chain, Residual, Depthwise, OneDimensional, Shared]
FILES = ["onnxruntime", "integer", "qdq", "qdq-int8"]


def reached(model: onnx.ModelProto) -> int:
    return max(largest_pair_sums(model, extreme_inputs(model)).values(), default=0)


@pytest.mark.parametrize("to", FILES)
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_pair_of_products_leaves_16_bits(kind, precision, to):
    assert reached(written(kind, precision, to=to)) <= PAIR_LIMIT


@pytest.mark.parametrize("awkward", [False, True])
def test_files_with_all_eight_bits_do_leave_them(awkward):
    assert (
        reached(written(Chain, "int8", target="onnxruntime-vnni", to="onnxruntime-vnni", awkward=awkward)) > PAIR_LIMIT
    )


@pytest.mark.parametrize("prepared", ["onnxruntime-vnni", "qonnx"])
@pytest.mark.parametrize("precision", ["ternary", "int4", "int8"])
@pytest.mark.parametrize("to", FILES)
def test_wide_weights_of_other_targets_are_written_for_kernels_that_add_no_pairs(to, precision, prepared, tmp_path):
    program, path = converted(Residual, precision, target=prepared), tmp_path / "model.onnx"
    report = ana_fx.export(program, path, target=to)
    assert report.needs_vnni == ()
    assert reached(onnx.load(path)) <= PAIR_LIMIT
    assert ana_fx.verify(program, path).num_different == 0


class Attention(nn.Module):
    """Matrix products of two tensors, signed and not."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        return scores @ self.v(x) + self.k(x) @ torch.relu(self.v(x))


class Mixing(nn.Module):
    """Matrix products with a constant, of signed and of unsigned numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.mixing = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.q(x)
        return y @ self.mixing + torch.relu(y) @ self.mixing


@pytest.mark.parametrize(
    ("kind", "to"), [*((Attention, to) for to in FILES), (Mixing, "onnxruntime"), (Mixing, "integer")]
)
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_products_of_two_tensors_leave_no_16_bits_either(precision, kind, to, tmp_path):
    x = torch.randn(64, 8, 8)
    qat = ana_fx.prepare(kind(), x, precision=precision, calibration=[x])
    program, path = ana_fx.convert(qat), tmp_path / "model.onnx"
    ana_fx.export(program, path, target=to)
    assert reached(onnx.load(path)) <= PAIR_LIMIT
    assert ana_fx.verify(program, path).num_different == 0


def stored(dtype: str, smallest: int, largest: int) -> StoredTensor:
    return StoredTensor(ir.Value(name="x", type=ir.TensorType(ir.DataType[dtype])), 0, (4,), largest, smallest)


@pytest.mark.parametrize(
    ("weights", "x", "dtype"),
    [
        ([127, 1, 127, 1], stored("UINT8", 0, 255), np.int8),  # no two large ones are paired
        ([127, 2, 127, 1], stored("UINT8", 0, 255), np.uint8),
        ([127, -127, 127, -127], stored("UINT8", 0, 255), np.int8),  # they cancel
        ([127, 127, 127, 127], stored("UINT8", 0, 129), np.int8),
        ([127, 127, 127, 127], stored("UINT8", 0, 130), np.uint8),
        ([127, 127, 127, 127], stored("INT8", -128, 127), np.int8),  # signed by signed bytes are not paired on x86
    ],
)
def test_int8_is_kept_where_neighbours_are_proven(weights, x, dtype):
    found = store_weight(torch.tensor([weights]), x, target_called("onnxruntime"))
    assert found.array.dtype == dtype
    assert (found.array.astype(int) - found.zero_point).tolist() == [weights]
    assert not found.needs_vnni


def test_the_tests_have_seen_files_with_pairs(tmp_path: Path):
    found = largest_pair_sums(written(Chain, "int8"), extreme_inputs(written(Chain, "int8")))
    assert {name.split("/")[0] for name in found} == {"features.0", "features.5", "hidden", "head"}
    assert min(found.values()) > 0
