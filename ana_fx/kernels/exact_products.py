"""Sums of products of 8-bit integers on GPUs, exact by construction and as fast as the processor allows.

Off the CPU a float convolution may be computed by Winograd's or Fourier's transform, or from inputs rounded to TF32;
no sum of it can be trusted. These products are integers all the way: int8 factors, int32 sums, in the matrix units of
the GPU where a map has many channels. Integer sums do not depend on their order, and none leaves 32 bits as long as
the bound of the accumulators is below 2**31. Levels 0 … 255 are shifted into int8; each accumulator then lacks the
shift times the sum of its weights, another integer, which is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.kernels.int8_convolution import Convolvable, Int8Convolution
from ana_fx.kernels.int8_levels import WIDE, Finish, is_dense, write_levels
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.kernels.triton_launch import has_triton, launch
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.sum import Sum
from ana_fx.operators.transposed_convolution import TransposedConvolution

__all__ = ["Int8MatMul", "Int8Sum", "fits_int8", "int8_matrix_products", "int8_products"]

_HAVE_KERNELS = frozenset({Convolution, Linear, MatMul, Sum, TransposedConvolution})


def fits_int8(operator: Operator, form: IntegerForm, kinds: Sequence[IntegerType], weight_magnitude: int = 0) -> bool:
    """Whether there is a kernel for the products of a map.

    Args:
        operator: The map.
        form: Its integers, on the device where it will run.
        kinds: The levels of each input.
        weight_magnitude: No coefficient exceeds this in absolute value.
    """
    if not form.output_scale.is_cuda or not has_triton():
        return False
    has_kernel = type(operator) in _HAVE_KERNELS and len(kinds) == operator.num_inputs
    return has_kernel and weight_magnitude < 128 and form.bound < WIDE


def int8_products(
    operator: Convolvable, weight: Tensor, kind: IntegerType, finish: Finish | None = None
) -> Int8Convolution:
    """The products of a weight with levels that fit.

    Args:
        operator: The map.
        weight: Integer coefficients.
        kind: The levels of the input.
        finish: The staircase; with it results are real.
    """
    return Int8Convolution(operator, weight, _shift(kind), finish)


def int8_matrix_products(
    kinds: Sequence[IntegerType], finish: Finish | None = None, sign: Tensor | None = None
) -> Int8MatMul:
    """The matrix products of two tensors of levels that fit.

    Args:
        kinds: The levels of each input.
        finish: The staircase; with it results are real.
        sign: Of the accumulators, before the staircase, [1].
    """
    first, second = kinds
    return Int8MatMul((_shift(first), _shift(second)), finish, sign)


def _shift(kind: IntegerType) -> int:
    """What is taken from levels so that they fit int8."""
    return 0 if kind.qmax < 128 else kind.qmin + 128


@dataclass(frozen=True)
class Int8MatMul:
    """Matrix products over the last two axes.

    Args:
        shifts: What is taken from the levels of each factor so that they fit int8.
        finish: The staircase of one channel, if there is one.
        sign: Of the accumulators then, float32, [1].
    """

    shifts: tuple[int, int]
    finish: Finish | None = None
    sign: Tensor | None = None

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Any tensors."""
        return True

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of reals, multiples of their scales: int32 accumulators, or what the staircase makes of them, real."""
        from ana_fx.kernels import triton_products as kernels

        batch, other = tensors[0].shape[:-2], tensors[1].shape[:-2]
        if batch != other:
            batch = torch.broadcast_shapes(batch, other)
        factors = []
        for x, scale, shift in zip(tensors, scales, self.shifts, strict=True):
            x = x.contiguous()  # a kernel that reads what lies apart, and strided products, would take longer
            levels = torch.empty(x.shape, dtype=torch.int8, device=x.device)
            write_levels(x, scale, levels, shift, is_moved=False)
            factors.append(levels.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:]))
        first, second = factors
        (count, m, inner), n = first.shape, second.shape[-1]
        finish, sign = self.finish, self.sign
        finishes = finish is not None and sign is not None
        out = torch.empty((count, m, n), dtype=torch.float32 if finishes else torch.int32, device=first.device)
        last = (out, out, out, out)
        if finish is not None and sign is not None:
            last = (sign, finish.slope, finish.bias, finish.ends)
        factor = 1 if finish is None else finish.factor
        numbers = (m, n, inner, *first.stride(), *second.stride(), *self.shifts, factor)
        block_k = 32 if inner <= 32 else 64
        launch(
            kernels.multiply,
            (-(-m // 64), -(-n // 64), count),
            (first, second, out, *last),
            numbers,
            (finishes, 64, 64, block_k),
            numbers,
            num_warps=4,
            num_stages=3,
            enable_fp_fusion=False,
        )
        return out.reshape(*batch, m, n)


@dataclass(frozen=True)
class Int8Sum:
    """The reals that a staircase makes of c₀ · n₀ + c₁ · n₁; one channel.

    Args:
        coefficients: c, [2].
        sign: Of the sum, [1].
        finish: The staircase.
    """

    coefficients: Tensor
    sign: Tensor
    finish: Finish

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether both tensors have one shape and layout."""
        first, second = tensors
        return first.shape == second.shape and first.stride() == second.stride() and is_dense(first)

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of two tensors that it takes."""
        from ana_fx.kernels import triton_products as kernels

        first, second = tensors
        y = torch.empty_like(first, dtype=torch.float32)
        size, finish = first.numel(), self.finish
        launch(
            kernels.combine,
            (-(-size // 1024), 1, 1),
            (first, second, *scales, self.coefficients, self.sign, y, finish.slope, finish.bias, finish.ends),
            (size, finish.factor),
            (1024,),
            (
                first.dtype,
                second.dtype,
                scales[0].dtype,
                scales[1].dtype,
                size == 1,
                size % 16 == 0,
                size >= WIDE,
            ),
            num_warps=4,
            enable_fp_fusion=False,
        )
        return y
