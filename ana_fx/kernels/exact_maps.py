"""Integer maps of single numbers and of rows on GPUs, by one kernel each (see `ana_fx.kernels.triton_maps`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.kernels.int8_levels import WIDE, is_dense
from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.kernels.triton_launch import has_kernels, has_triton, launch
from ana_fx.operators.normalization import MANTISSA_BITS, MAX_EXPONENT, RESULT_SHIFT, Normalization, root_table
from ana_fx.requantizers.staircase import ShiftStaircase

__all__ = [
    "LONGEST_ROW",
    "ExactNormalization",
    "exact_normalization",
    "look_up_levels",
    "round_input",
    "rounds_at_once",
    "softmax_of_levels",
]

_BLOCK = 2048
LONGEST_ROW = 2**13  # of numbers that one program works on


@dataclass(frozen=True)
class ExactNormalization:
    """A normalisation with its staircase, which shifts.

    Args:
        operator: Which numbers belong to a row.
        epsilon: E, int64, 0-dimensional.
        root: The table of roots, int64.
        finish: Multiplier, with the channel's sign, offset and shift, int64, [channels].
        ends: The lowest level, the highest one, and the scale of the output, float32, [3].
    """

    operator: Normalization
    epsilon: Tensor
    root: Tensor
    finish: tuple[Tensor, Tensor, Tensor]
    ends: Tensor

    def takes(self, tensors: tuple[Tensor, ...]) -> bool:
        """Whether rows lie together, and fit a block."""
        (x,) = tensors
        return x.is_contiguous() and has_kernels(x) and self.operator.row_shape(tuple(x.shape))[-1] <= LONGEST_ROW

    def __call__(self, tensors: tuple[Tensor, ...], scales: tuple[Tensor, ...]) -> Tensor:
        """Of reals, multiples of their scale: what the staircase makes of their normalised levels, real."""
        from ana_fx.kernels import triton_maps as kernels

        (x,), (scale,) = tensors, scales
        length, axis = self.operator.row_shape(tuple(x.shape))[-1], self.operator.channel_axis(x.ndim)
        places, channels = math.prod(x.shape[axis + 1 :]), x.shape[axis]
        y = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        block = 1 << (length - 1).bit_length()
        launch(
            kernels.normalize,
            (x.numel() // length, 1, 1),
            (x, scale, self.epsilon, self.root, *self.finish, self.ends, y),
            (length, channels, places),
            (self.operator.is_centered, MAX_EXPONENT, MANTISSA_BITS, RESULT_SHIFT, block),
            (x.dtype, scale.dtype, length, channels, places),
            num_warps=4,
            enable_fp_fusion=False,
        )
        return y


def exact_normalization(operator: Normalization, form: IntegerForm) -> ExactNormalization | None:
    """The kernel of a normalisation, if there is one for its staircase and the device of its scale."""
    epsilon, sign, staircase, output_scale = form.weight, form.sign, form.staircase, form.output_scale
    if not output_scale.is_cuda or not has_triton() or epsilon is None or sign is None:
        return None
    if not isinstance(staircase, ShiftStaircase):
        return None
    numbers = (staircase.multiplier * sign.to(torch.int64), staircase.offset, staircase.shift)
    finish = tuple(each.expand(len(sign)).to(torch.int64).contiguous() for each in numbers)
    device = output_scale.device
    ends = [torch.as_tensor(end, device=device, dtype=torch.float32) for end in (staircase.lo, staircase.hi)]
    return ExactNormalization(
        operator,
        epsilon,
        root_table().to(device),
        (finish[0], finish[1], finish[2]),
        torch.stack([*ends, output_scale]),
    )


def look_up_levels(x: Tensor, scale: Tensor, table: Tensor, lowest: int, output_scale: Tensor) -> Tensor:
    """The real entry of each level, in the row of its channel on axis 1 if there are several rows."""
    from ana_fx.kernels import triton_maps as kernels

    x = x.contiguous()
    y = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    size, (num_rows, num_levels) = x.numel(), table.shape
    places = math.prod(x.shape[2:])
    launch(
        kernels.look_up,
        (-(-size // _BLOCK), 1, 1),
        (x, scale, table, output_scale, y),
        (size, lowest, num_levels, places, num_rows),
        (_BLOCK,),
        (x.dtype, scale.dtype, size % 16 == 0, size == 1, size >= WIDE, lowest, num_levels, places, num_rows),
        num_warps=8,
        enable_fp_fusion=False,
    )
    return y


def softmax_of_levels(
    x: Tensor, scale: Tensor, table: Tensor, highest: int, output_scale: Tensor, *, is_nearest: bool
) -> Tensor:
    """`ana_fx.layers.softmax_map.integer_softmax` over the last axis, from reals to reals; of LONGEST_ROW numbers at
    most."""
    from ana_fx.kernels import triton_maps as kernels

    x = x.contiguous()
    y = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    length = x.shape[-1]
    block = 1 << (length - 1).bit_length()
    launch(
        kernels.softmax,
        (x.numel() // length, 1, 1),
        (x, scale, table, output_scale, y),
        (length, len(table), highest),
        (is_nearest, block),
        (x.dtype, scale.dtype, length, len(table), highest),
        num_warps=2 if block <= 512 else 4,
        enable_fp_fusion=False,
    )
    return y


def rounds_at_once(x: Tensor, scale: Tensor) -> bool:
    """Whether `round_input` takes an input: on a GPU, without gaps, and no gradient wanted."""
    if x.requires_grad or scale.requires_grad or scale.ndim or not has_kernels(x):
        return False
    return x.dtype in (torch.float32, torch.bfloat16, torch.float16) and is_dense(x)


def round_input(x: Tensor, scale: Tensor, lowest: int, highest: int, *, keeps_nan: bool) -> Tensor:
    """clip(round(x / scale)) · scale, half to even, float32; NaN stays NaN, or is the lowest level."""
    from ana_fx.kernels import triton_maps as kernels

    y = torch.empty_like(x, dtype=torch.float32)
    size = x.numel()
    launch(
        kernels.round_input,
        (-(-size // _BLOCK), 1, 1),
        (x, scale, y),
        (size, float(lowest), float(highest)),
        (keeps_nan, _BLOCK),
        (x.dtype, size % 16 == 0, size == 1, size >= WIDE),
        num_warps=8,
        enable_fp_fusion=False,
    )
    return y
