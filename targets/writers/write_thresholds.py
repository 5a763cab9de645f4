"""Writing the levels of a codebook, from int32 accumulators, in standard integer operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from ana_fx.numerics.codebook import Codebook
from ana_fx.program.integer_layers import IntegerThresholds
from ana_fx.targets.onnx.dialect import Writer
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import StoredTensor
from ana_fx.targets.writers.write_requantizer import channel_numbers, per_channel

__all__ = ["compared"]

_LARGEST = 2**31 - 1


def compared(write_accumulators: Callable[[NodeWriter, Any], ir.Value]) -> Writer:
    """Make the writer of a layer map with the levels of a codebook from that of its accumulators."""

    def write(w: NodeWriter, op: object) -> StoredTensor:
        accumulator = write_accumulators(w, op)
        producer = accumulator.producer()
        assert producer is not None
        w.notes.setdefault("operator", producer.op_type)
        w.note(arithmetic="int32")
        return w.stored(_levels(w, accumulator))

    return write


def _levels(w: NodeWriter, accumulator: ir.Value) -> ir.Value:
    """Write the highest level less the jumps at thresholds that the accumulator does not reach, as stored levels."""
    module: IntegerThresholds = w.module
    codebook, (dtype, zero_point) = module.integer_type.codebook, w.container
    assert codebook is not None
    signed = per_channel(w, "Mul", accumulator, module.sign, neutral=1)
    value: ir.Value = w.number(codebook.values[-1] + zero_point, "highest")
    for index, jump in enumerate(Codebook(codebook.values, ()).jumps):
        threshold = module.thresholds[:, index].clamp(-_LARGEST, _LARGEST)
        is_short = w.op("Less", signed, channel_numbers(w, threshold, "threshold"), dtype=ir.DataType.BOOL)
        missing = w.op("Cast", is_short, to=w.dtype)
        missing = per_channel(w, "Mul", missing, torch.tensor([jump]), neutral=1)
        value = w.op("Sub", value, missing)
    return w.op("Cast", value, dtype=dtype, to=dtype)
