"""The other modules of a lowered program: tables, softmax, constants and max pools of integers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.layers.softmax_map import SoftmaxForm, integer_softmax
from ana_fx.layers.table_map import look_up
from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.program.tensor_spec import LevelRange

__all__ = ["IntegerConstant", "IntegerMaxPool", "IntegerSoftmax", "IntegerTable", "Repeat"]


class IntegerTable(Float32Module):
    """A function of each level: the entry of `table` for it, [1 or channels on axis 1, levels].

    `lo` and `hi` are the range of its entries and of 0, which whatever reads them can pad with.
    """

    table: Tensor

    def __init__(self, table: Tensor, lowest: int, integer_type: IntegerType, output_scale: Tensor) -> None:
        super().__init__()
        self.lowest = lowest
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.lo, self.hi = _range_with_zero(table)
        self.register_buffer("table", table.to(integer_type.dtype))

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.lo, self.hi, self.output_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels."""
        return look_up(self.table, x.to(torch.int64) - self.lowest)


class IntegerSoftmax(Float32Module):
    """Softmax over one axis (see `ana_fx.layers.softmax_map`)."""

    table: Tensor

    def __init__(self, axis: int, form: SoftmaxForm, integer_type: IntegerType) -> None:
        super().__init__()
        self.axis = axis
        self.highest = form.highest
        self.is_nearest = form.is_nearest
        self.integer_type = integer_type
        self.output_scale = form.output_scale
        self.register_buffer("table", form.table)

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, 0, self.integer_type.qmax, self.output_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels."""
        levels = integer_softmax(x.to(torch.int64), self.axis, self.table, self.highest, self.is_nearest)
        return levels.to(self.integer_type.dtype)


class IntegerConstant(Float32Module):
    """Levels that do not depend on the input; they have no batch axis.

    `lo` and `hi` are their range and that of 0, which whatever reads them can pad with.
    """

    levels: Tensor

    def __init__(self, levels: Tensor, integer_type: IntegerType, output_scale: Tensor) -> None:
        super().__init__()
        self.integer_type = integer_type
        self.output_scale = output_scale
        self.lo, self.hi = _range_with_zero(levels)
        self.register_buffer("levels", levels.to(integer_type.dtype))

    @property
    def level_range(self) -> LevelRange:
        """The levels that it gives."""
        return LevelRange(self.integer_type, self.lo, self.hi, self.output_scale)

    def forward(self) -> Tensor:
        """The levels."""
        return self.levels


class Repeat(nn.Module):
    """A constant for each sample of another tensor."""

    def forward(self, constant: Tensor, samples: Tensor) -> Tensor:
        """[*shape] and [N, …] to [N, *shape]."""
        return constant.expand(samples.shape[0], *constant.shape)


class IntegerMaxPool(nn.Module):
    """Max pooling of levels; float32 holds them exactly on every device.

    Args:
        kernel: Size of the window along each spatial axis.
        stride: Distance of windows.
        padding: (before, after) for each axis, of numbers that are never the largest.
        dilation: Distance of a window's elements.
    """

    def __init__(
        self,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        dilation: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Levels to levels of the same type."""
        pads = [pad for pair in reversed(self.padding) for pad in pair]
        padded = F.pad(x.to(torch.float32), pads, value=-torch.inf)
        pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.kernel) - 1]
        return pool(padded, self.kernel, self.stride, 0, self.dilation).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


def _range_with_zero(levels: Tensor) -> tuple[int, int]:
    return min(int(levels.min()), 0), max(int(levels.max()), 0)
