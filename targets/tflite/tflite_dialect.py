"""The table of TFLite's writers, by the operator of a layer map or the type of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node

from ana_fx.graph import location
from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.minimum import Minimum
from ana_fx.operators.product import Product
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from ana_fx.program.data_movement import Concat, Pad, Permute, Reshape, Slice, Take
from ana_fx.program.integer_layers import IntegerMap
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.target import Target
from ana_fx.targets.tflite.held_tensor import HeldTensor
from ana_fx.targets.tflite.tflite_limits import LIMITS, Limit, layout_reasons
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.upsamplings import NearestResize, SpreadConvolution, Upsampling, upsamplings
from ana_fx.targets.tflite.write_joins import write_concat, write_max_pool
from ana_fx.targets.tflite.write_lookups import write_table
from ana_fx.targets.tflite.write_moves import write_permute, write_reshape, write_slice, write_take, write_zeros
from ana_fx.targets.tflite.write_pairs import write_maximum, write_minimum, write_mul, write_sum
from ana_fx.targets.tflite.write_products import (
    write_average,
    write_convolution,
    write_identity,
    write_linear,
    write_mean,
)
from ana_fx.targets.tflite.write_softmax import write_softmax
from ana_fx.targets.tflite.write_upsampling import write_resize, write_transposed

__all__ = ["TFLITE", "TfliteDialect", "Write"]

Write = Callable[[TfliteWriter, Any], HeldTensor]


class TfliteDialect(dict[type, Write]):
    """The writers of TFLite, by the type of an operator or a module.

    Args:
        writers: The writers.
        limits: By the same types, the functions that say why kernels cannot compute a node.
    """

    def __init__(self, writers: Mapping[type, Write], limits: Mapping[type, Limit]) -> None:
        super().__init__(writers)
        self.limits = limits

    def subject(self, module: nn.Module) -> Any:
        """The object by whose type a module is written: the operator of an integer map, else the module itself."""
        return module.operator if isinstance(module, IntegerMap) else module

    def upsamplings(self, program: GraphModule) -> dict[Node, Upsampling]:
        """The groups of nodes that it writes as one operator, by the last node of each."""
        return {node: each for node, each in upsamplings(program).items() if type(each.form) in self}

    def writer(self, module: nn.Module) -> Write | None:
        """The writer of a module; None if the dialect has none."""
        return self.get(type(self.subject(module)))

    def misfits(self, node: Node, module: nn.Module, target: Target) -> list[str]:
        """Say why a node that calls a module cannot be written, a line for each reason."""
        subject = self.subject(module)
        kind = type(subject)
        if kind not in self:
            reasons = [f"target {target.name!r} has no writer for {kind.__name__}, needed one in its table"]
        elif kind not in self.limits:
            reasons = [f"target {target.name!r} has no limits for {kind.__name__}, needed them beside its writer"]
        else:
            reasons = [*layout_reasons(node), *self.limits[kind](node, subject, target)]
        return [f"{location(node)}: {reason}" for reason in reasons]


_WRITERS: Mapping[type, Write] = {
    Average: write_average,
    Concat: write_concat,
    Convolution: write_convolution,
    Identity: write_identity,
    IntegerMaxPool: write_max_pool,
    IntegerSoftmax: write_softmax,
    IntegerTable: write_table,
    Linear: write_linear,
    Maximum: write_maximum,
    Minimum: write_minimum,
    NearestResize: write_resize,
    Pad: write_zeros,
    Permute: write_permute,
    Product: write_mul,
    Reduce: write_mean,
    Reshape: write_reshape,
    Slice: write_slice,
    SpreadConvolution: write_transposed,
    Sum: write_sum,
    Take: write_take,
}
TFLITE = TfliteDialect(_WRITERS, LIMITS)
"""CONV_2D and DEPTHWISE_CONV_2D for everything that multiplies weights, ADD and MUL where proven, GATHER for tables."""
