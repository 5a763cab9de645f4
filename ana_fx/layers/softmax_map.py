"""Softmax in integers.

Of levels n with scale s and their largest n*, with exponentials from a table and an unsigned output of
levels 0 … q, which stand for n / q:

    e = round(2^15 · exp(−s · (n* − n)))
    y = ⌊(2·q·e + Σ e) / (2·Σ e)⌋               nearest rounding; ⌊q·e / Σ e⌋ with floor
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ana_fx.kernels.exact_maps import LONGEST_ROW, softmax_of_levels
from ana_fx.kernels.triton_launch import has_kernels
from ana_fx.layers.function_map import FunctionMap
from ana_fx.layers.layer_map import levels_of
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.precision.rounding import Rounding

__all__ = ["MAX_TERMS", "SoftmaxForm", "SoftmaxMap", "integer_softmax"]

_EXPONENTIAL_BITS = 15
MAX_TERMS = 2**14  # so that 2·q·e + Σ e and 2·Σ e stay below 2**31


@dataclass(frozen=True)
class SoftmaxForm:
    """What a softmax deploys.

    Args:
        table: e for n* − n = 0, 1, …, int64.
        highest: The highest output level.
        is_nearest: Whether quotients are rounded to the nearest, else down.
        output_scale: 1 / highest, float32.
    """

    table: Tensor
    highest: int
    is_nearest: bool
    output_scale: Tensor


class SoftmaxMap(FunctionMap):
    """Softmax over one axis; its output quantizer is unsigned and its scale fixed.

    Args:
        axis: The axis, not the first.
    """

    kind = "softmax"
    has_own_scale = True

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    @property
    def operation(self) -> str:
        """Softmax and its axis."""
        return f"softmax over axis {self.axis}"

    @property
    def can_recompute(self) -> bool:
        """Softmax can."""
        return True

    def is_nonnegative(self, *, inputs_are: bool) -> bool:
        """Probabilities are."""
        return True

    def output_type(self, wanted: IntegerType, *, is_nonnegative: bool, has_bytes: bool) -> IntegerType:
        """As wide as is wanted, unsigned, all levels."""
        if wanted.levels:  # a codebook has no level for each probability
            return IntegerType(bits=8, signed=False)
        return replace(wanted, signed=False, narrow=False)

    def settle_scale(self, quantizer: Quantizer) -> None:
        """The highest level is 1."""
        quantizer.set_scale(torch.tensor(1.0 / quantizer.integer_type.qmax))

    def of_reals(self, x: Tensor) -> Tensor:
        """Softmax."""
        return torch.softmax(x, self.axis)

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> SoftmaxForm:
        """The table of exponentials. They are computed on the CPU, so every device has the same table."""
        self._check_calibrated()
        assert self.output_quantizer is not None
        (kind,) = self.input_types
        distance = torch.arange(kind.qmax - kind.qmin + 1, dtype=torch.float64)
        table = torch.exp(-positive(scales[0]).double().cpu() * distance) * 2.0**_EXPONENTIAL_BITS
        return SoftmaxForm(
            torch.round(table).to(torch.int64).to(scales[0].device),
            self.output_quantizer.integer_type.qmax,
            self.output_quantizer.rounding is Rounding.NEAREST,
            positive(self.output_quantizer.scale),
        )

    def deployed(self, tensors: tuple[Tensor, ...], form: SoftmaxForm, scales: tuple[Tensor, ...]) -> Tensor:
        """The formula at the top, with a kernel where rows are short."""
        x, highest, is_nearest = tensors[0], form.highest, form.is_nearest
        is_last = self.axis % x.ndim == x.ndim - 1 and x.shape[-1] <= LONGEST_ROW
        if is_last and has_kernels(x):
            return softmax_of_levels(x, scales[0], form.table, highest, form.output_scale, is_nearest=is_nearest)
        (levels,) = levels_of(tensors, scales)
        n = levels.to(torch.int64)
        return integer_softmax(n, self.axis, form.table, highest, is_nearest).float() * form.output_scale


def integer_softmax(n: Tensor, axis: int, table: Tensor, highest: int, is_nearest: bool) -> Tensor:
    """The formula at the top, int64."""
    e = table[n.amax(axis, keepdim=True) - n]
    total = e.sum(axis, keepdim=True)
    if is_nearest:
        return torch.div(2 * highest * e + total, 2 * total, rounding_mode="trunc")
    return torch.div(highest * e, total, rounding_mode="trunc")
