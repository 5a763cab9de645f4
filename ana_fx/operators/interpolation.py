"""Linear interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ana_fx.operators.resampling import Resampling, of_each_axis
from ana_fx.requantizers.requantizer import Requantizer

__all__ = ["Interpolation"]

_INTERPOLATION_UNIT = 64  # a weight of linear interpolation is a multiple of this part


@dataclass(frozen=True)
class Interpolation(Resampling):
    """Linear interpolation of one or two axes; on integers its weights are multiples of 1/64 that sum to one.

    `size` and `scale_factor` are those of `torch.nn.functional.interpolate`, one of them None.
    """

    kind = "interpolation"
    requantizers = frozenset({Requantizer.SHIFT})  # no QLinear operator computes it

    rank: int
    size: tuple[int, ...] | None
    scale_factor: tuple[float, ...] | None
    align_corners: bool

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Interpolation]]:
        """Upsampling, of which the nearest kind moves numbers and never comes here."""
        return {nn.Upsample: cls.of}

    @classmethod
    def of(cls, module: nn.Upsample) -> Interpolation:
        """That of a module whose mode is linear or bilinear."""
        rank = 1 if module.mode == "linear" else 2
        size = None if module.size is None else of_each_axis(module.size, rank)
        factor = None if module.scale_factor is None else of_each_axis(module.scale_factor, rank)
        return cls(rank, size, factor, bool(module.align_corners))

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """[N, C, *size] to [N, C, *size']."""
        return F.interpolate(
            inputs[0],
            None if self.size is None else list(self.size),
            None if self.scale_factor is None else list(self.scale_factor),
            mode="linear" if self.rank == 1 else "bilinear",
            align_corners=self.align_corners,
        )

    def divisor(self, shape: tuple[int, ...]) -> int:
        """One such unit for each axis."""
        return int(_INTERPOLATION_UNIT**self.rank)

    def matrices(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The interpolation along each axis."""
        sizes = shape[-self.rank :]
        return tuple(self._matrix(axis, sizes) for axis in range(self.rank))

    def _matrix(self, axis: int, sizes: tuple[int, ...]) -> Tensor:
        """The interpolation of unit vectors along one axis, constant along the other, rounded to rows of one sum."""
        size = sizes[axis]
        lengths = (size if a == axis else 1 for a in range(self.rank))
        units = torch.eye(size, dtype=torch.float64).reshape(size, 1, *lengths)
        images = units.expand(size, 1, *sizes)
        rows = self.real((images,), None).movedim(2 + axis, -1).reshape(size, -1, self._length(axis, sizes))[:, 0].T
        weights = torch.round(rows * _INTERPOLATION_UNIT).long()
        largest = rows.argmax(1, keepdim=True)
        missing = _INTERPOLATION_UNIT - weights.sum(1, keepdim=True)
        return weights.scatter_add(1, largest, missing)

    def _length(self, axis: int, sizes: tuple[int, ...]) -> int:
        if self.size is not None:
            return self.size[axis]
        assert self.scale_factor is not None
        return math.floor(sizes[axis] * self.scale_factor[axis])
