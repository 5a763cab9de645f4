"""The table of TOSA's writers, by the operator of a layer map or the type of a module."""

from __future__ import annotations

from collections.abc import Mapping

from ana_fx.operators.average import Average
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.reduce import Reduce
from ana_fx.program.data_movement import Concat, Pad, Permute, Reshape, Slice, Take
from ana_fx.targets.channels_last.free_moves import write_permute, write_reshape
from ana_fx.targets.channels_last.writer_dialect import Write, WriterDialect
from ana_fx.targets.tosa.tosa_moves import write_concat, write_slice, write_take, write_zeros
from ana_fx.targets.tosa.tosa_products import PRODUCTS

__all__ = ["TOSA"]

_WRITERS: Mapping[type, Write] = {
    Average: PRODUCTS.average,
    Concat: write_concat,
    Convolution: PRODUCTS.convolution,
    Identity: PRODUCTS.identity,
    Linear: PRODUCTS.linear,
    Pad: write_zeros,
    Permute: write_permute,
    Reduce: PRODUCTS.mean,
    Reshape: write_reshape,
    Slice: write_slice,
    Take: write_take,
}
TOSA = WriterDialect(_WRITERS)
"""Integers of 32 bits between levels, and RESCALE to them."""
