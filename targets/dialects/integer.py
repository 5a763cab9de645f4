"""The portable dialect: standard integer operators only, no float anywhere."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import torch

from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.onnx.dialect import Dialect
from ana_fx.targets.onnx.node_writer import NodeWriter
from ana_fx.targets.onnx.stored_tensor import Container, StoredTensor
from ana_fx.targets.writers.write_accumulators import accumulators
from ana_fx.targets.writers.write_borders import borders
from ana_fx.targets.writers.write_constant import constants
from ana_fx.targets.writers.write_float_layer import float_layers
from ana_fx.targets.writers.write_max_pool import write_max_pool
from ana_fx.targets.writers.write_movement import movements
from ana_fx.targets.writers.write_requantizer import per_channel, requantized
from ana_fx.targets.writers.write_table import functions
from ana_fx.targets.writers.write_thresholds import compared

__all__ = ["INTEGER"]


def write_head(w: NodeWriter, op: Operator) -> StoredTensor:
    """Write the accumulators of weights that are `factor` times the trained ones, and add the bias, in int32."""
    head: IntegerHead = w.module
    assert head.weight is not None
    accumulator = accumulators[type(op)](replace(w, weight=head.weight.to(torch.int32) * head.factor), op)
    producer = accumulator.producer()
    assert producer is not None
    w.note(operator=producer.op_type, arithmetic="int32")
    logits = per_channel(w, "Add", accumulator, head.bias.expand(len(head.weight)), neutral=0)
    return StoredTensor(logits, 0, w.shape)


def _container(integer_type: IntegerType) -> Container:
    """Store levels in int8 or uint8, with zero point 0 if the type has no other."""
    if integer_type.zero_point is not None:
        return Container(ir.DataType.UINT8, integer_type.zero_point)
    return Container(ir.DataType.INT8 if integer_type.signed else ir.DataType.UINT8, 0)


INTEGER = Dialect(
    operators={kind: requantized(write) for kind, write in accumulators.items()},
    heads=dict.fromkeys((Convolution, Linear), write_head),
    codebooks={kind: compared(write) for kind, write in accumulators.items()},
    float_layers=float_layers,
    modules={**borders, **constants, **functions, **movements, IntegerMaxPool: write_max_pool},
    container=_container,
)
"""ConvInteger and MatMulInteger, then Mul, Add, Div, Clip."""
