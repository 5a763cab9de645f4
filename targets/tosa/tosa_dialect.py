"""The table of TOSA's writers, by the operator of a layer map or the type of a module."""

from __future__ import annotations

from collections.abc import Mapping

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
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.integer_modules import IntegerMaxPool, IntegerSoftmax, IntegerTable
from ana_fx.targets.channels_last.free_moves import write_permute, write_reshape
from ana_fx.targets.channels_last.upsamplings import NearestResize, SpreadConvolution
from ana_fx.targets.channels_last.writer_dialect import Write, WriterDialect
from ana_fx.targets.tosa.tosa_limits import LIMITS
from ana_fx.targets.tosa.tosa_lookups import write_table
from ana_fx.targets.tosa.tosa_moves import write_concat, write_slice, write_take, write_zeros
from ana_fx.targets.tosa.tosa_pairs import write_maximum, write_minimum, write_mul, write_sum
from ana_fx.targets.tosa.tosa_pools import write_max_pool
from ana_fx.targets.tosa.tosa_products import PRODUCTS, write_head
from ana_fx.targets.tosa.tosa_softmax import write_softmax
from ana_fx.targets.tosa.tosa_upsampling import write_resize, write_transposed

__all__ = ["TOSA"]

_WRITERS: Mapping[type, Write] = {
    Average: PRODUCTS.average,
    Concat: write_concat,
    Convolution: PRODUCTS.convolution,
    Identity: PRODUCTS.identity,
    IntegerHead: write_head,
    IntegerMaxPool: write_max_pool,
    IntegerSoftmax: write_softmax,
    IntegerTable: write_table,
    Linear: PRODUCTS.linear,
    Maximum: write_maximum,
    Minimum: write_minimum,
    NearestResize: write_resize,
    Pad: write_zeros,
    Permute: write_permute,
    Product: write_mul,
    Reduce: PRODUCTS.mean,
    Reshape: write_reshape,
    Slice: write_slice,
    SpreadConvolution: write_transposed,
    Sum: write_sum,
    Take: write_take,
}
TOSA = WriterDialect(_WRITERS, LIMITS)
"""Integers of 32 bits between levels, and RESCALE to them."""
