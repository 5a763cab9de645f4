"""Which kernel computes an integer form fast, by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ana_fx.kernels.exact_maps import ExactNormalization, exact_normalization
from ana_fx.kernels.exact_products import Int8MatMul, Int8Sum, fits_int8, int8_matrix_products, int8_products
from ana_fx.kernels.int8_convolution import Convolvable, Int8Convolution
from ana_fx.kernels.int8_levels import Finish
from ana_fx.kernels.integer_form import FastKernel, IntegerForm
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.sum import Sum
from ana_fx.operators.transposed_convolution import TransposedConvolution

__all__ = ["kernel_of"]


def kernel_of(
    operator: Operator, form: IntegerForm, kinds: Sequence[IntegerType], weight_magnitude: int
) -> FastKernel | None:
    """What computes a form on a GPU, in one go where its staircase can follow at once; None if nothing does.

    Args:
        operator: The map.
        form: What it deploys, on the device where it will run.
        kinds: The levels of each input.
        weight_magnitude: No weight exceeds this in absolute value.
    """
    make = _KERNELS.get(type(operator))
    return None if make is None else make(operator, form, kinds, weight_magnitude)


def _products(
    operator: Convolvable, form: IntegerForm, kinds: Sequence[IntegerType], weight_magnitude: int
) -> Int8Convolution | None:
    weight = form.weight
    if weight is None or not fits_int8(operator, form, kinds, weight_magnitude):
        return None
    finish = None if form.sign is not None else Finish.of(form.staircase, form.output_scale, len(weight))
    return int8_products(operator, weight, kinds[0], finish)


def _matrix_products(operator: MatMul, form: IntegerForm, kinds: Sequence[IntegerType], _: int) -> Int8MatMul | None:
    if not fits_int8(operator, form, kinds):
        return None
    return int8_matrix_products(kinds, Finish.of(form.staircase, form.output_scale, 1), form.sign)


def _sum(operator: Sum, form: IntegerForm, kinds: Sequence[IntegerType], _: int) -> Int8Sum | None:
    finish = Finish.of(form.staircase, form.output_scale, 1)
    if finish is None or form.sign is None or form.weight is None or not fits_int8(operator, form, kinds):
        return None
    return Int8Sum(form.weight, form.sign, finish)


def _normalization(
    operator: Normalization, form: IntegerForm, _kinds: Sequence[IntegerType], _: int
) -> ExactNormalization | None:
    return exact_normalization(operator, form)


_KERNELS: Mapping[type[Operator], Callable[[Any, IntegerForm, Sequence[IntegerType], int], FastKernel | None]] = (
    MappingProxyType(
        {
            Convolution: _products,
            Linear: _products,
            MatMul: _matrix_products,
            Normalization: _normalization,
            Sum: _sum,
            TransposedConvolution: _products,
        }
    )
)
