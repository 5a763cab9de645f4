"""The last layer as floats, where `output="float"` leaves it so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.operators.linear import Linear
from ana_fx.targets.onnx.builder import Builder
from ana_fx.targets.onnx.convolution_attributes import pooling_attributes
from ana_fx.targets.onnx.emitter import numpy

__all__ = ["are_apart", "float_tolerance", "rounding_of_two", "write_float_layer"]

_HALF_ULP = 2.0**-24


def write_float_layer(
    builder: Builder, path: str, module: OperatorMap, x: ir.Value, shape: tuple[int, ...]
) -> ir.Value:
    """MatMul and Add, or Conv; the output sample has that shape."""
    assert module.weight is not None
    if isinstance(module.operator, Linear):
        weight = builder.constant(numpy(module.weight).T.copy(), f"{path}.weight")
        y = builder.op("MatMul", [x, weight], path=path, dtype=ir.DataType.FLOAT, shape=shape)
        if module.bias is None:
            return y
        bias = builder.constant(numpy(module.bias), f"{path}.bias")
        return builder.op("Add", [y, bias], path=path, dtype=ir.DataType.FLOAT, shape=shape)
    inputs: list[ir.Value | None] = [x, builder.constant(numpy(module.weight), f"{path}.weight")]
    if module.bias is not None:
        inputs.append(builder.constant(numpy(module.bias), f"{path}.bias"))
    attributes = pooling_attributes(module.operator, 0)
    return builder.op("Conv", inputs, path=path, dtype=ir.DataType.FLOAT, shape=shape, attributes=attributes)


@torch.no_grad()
def float_tolerance(module: OperatorMap, inputs: Sequence[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """How far two float32 evaluations of the layer can be apart, element by element.

    It is the sum of the magnitudes times `rounding_of_two`.
    """
    assert module.weight is not None
    num_terms = module.weight[0].numel() + 1
    magnitudes = module.operator.real(
        tuple(x.double().abs() for x in inputs),
        module.weight.double().abs(),
        None if module.bias is None else module.bias.double().abs(),
    )
    return numpy(magnitudes * rounding_of_two(num_terms))


def rounding_of_two(num_terms: int) -> float:
    """How far two float32 sums of products can be apart, relative to the sum of the magnitudes.

    A sum of n products is off by at most γ = n·u / (1 − n·u) times that, with u half an ulp, whatever the order
    (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1); two sums by twice that.
    """
    rounding = num_terms * _HALF_ULP
    return 2 * rounding / (1 - rounding)


def are_apart(
    have: np.ndarray[Any, Any], want: np.ndarray[Any, Any], tolerance: np.ndarray[Any, Any] | float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where two arrays of reals are further apart than that; NaN is apart from everything."""
    apart: np.ndarray[Any, np.dtype[np.bool_]] = ~(np.abs(have.astype(np.float64) - want) <= tolerance)
    return apart
