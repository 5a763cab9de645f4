"""Division by the standard deviation of each row, in integers (see `ana_fx.operators.base_operator`).

Of the D levels n of a row, with S₁ = Σ n and S₂ = Σ n²:

    centered    c = D·n − S₁
    variance    V = D·S₂ − S₁² + E            D² times the variance of the levels, E for the epsilon
    exponent    4^j ≤ V < 4^(j + 1)
    mantissa    m = ⌊V · 2^10 / 4^j⌋          in [2^10, 2^12)
    root        r = round(2^20 / √(m + ½))    from a table
    result      u = ⌊c·r / 2^(5 + j)⌋

so that u / 2^10 is the normalised level, off by a relative error below 2^-10. Products of levels stay
below 2^62 for rows of up to 2^20 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ana_fx.operators.base_operator import Operator
from ana_fx.operators.coefficients import Epsilon, Operands
from ana_fx.requantizers.requantizer import Requantizer

__all__ = ["FRACTION_BITS", "MANTISSA_BITS", "MAX_EXPONENT", "RESULT_SHIFT", "Normalization", "UnitNorm", "root_table"]

FRACTION_BITS = 10  # of the result
MANTISSA_BITS = 10
MAX_EXPONENT = 24  # variances stay below 4^25
_ROOT_BITS = 20
_LEAST_EPSILON = 1e-24  # keeps rows of zeros at zero
RESULT_SHIFT = _ROOT_BITS - MANTISSA_BITS // 2 - FRACTION_BITS


def root_table() -> Tensor:
    """round(2^20 / √(m + ½)) for m from 2^10 to 2^12 − 1, int64."""
    mantissas = torch.arange(2**MANTISSA_BITS, 2 ** (MANTISSA_BITS + 2), dtype=torch.float64)
    return torch.round(2.0**_ROOT_BITS / torch.sqrt(mantissas + 0.5)).to(torch.int64)


class UnitNorm(nn.Module):
    """Rows of length 1: the last axis divided by its Euclidean norm, or by `epsilon` if that is more."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        return torch.nn.functional.normalize(x, dim=-1, eps=self.epsilon)


@dataclass(frozen=True)
class Normalization(Operator):
    """(x − mean) / √(variance + epsilon) over rows: the last `num_axes` axes, or the channels of a group.

    Args:
        epsilon: What is added to the variance.
        num_axes: Length of a row in axes, of a layer norm; 0 for a group norm.
        num_groups: Groups of a group norm over axis 1 and the axes behind it; 0 for a layer norm.
        is_centered: Whether the mean is subtracted; a root mean square norm leaves it.
    """

    kind = "normalization"
    is_exact_in_floats = False
    requantizers = frozenset({Requantizer.SHIFT})  # no QLinear operator computes it
    takes_batch_norm = False
    is_standardized = True

    epsilon: float
    num_axes: int = 1
    num_groups: int = 0
    is_centered: bool = True

    @classmethod
    def modules(cls) -> Mapping[type[nn.Module], Callable[[Any], Normalization]]:
        """Layer, root mean square, group and instance norms, and rows of length 1."""
        return {
            nn.LayerNorm: cls.of_rows,
            nn.RMSNorm: cls.of_root_mean_squares,
            nn.GroupNorm: cls.of_groups,
            nn.InstanceNorm1d: cls.of_instances,
            nn.InstanceNorm2d: cls.of_instances,
            nn.InstanceNorm3d: cls.of_instances,
            UnitNorm: lambda _: cls(0.0, is_centered=False),
        }

    @classmethod
    def of_rows(cls, module: nn.LayerNorm) -> Normalization:
        """That of a layer norm."""
        return cls(module.eps, len(module.normalized_shape))

    @classmethod
    def of_root_mean_squares(cls, module: nn.RMSNorm) -> Normalization:
        """That of a root mean square norm."""
        epsilon = torch.finfo(torch.float32).eps if module.eps is None else module.eps
        return cls(epsilon, len(module.normalized_shape), is_centered=False)

    @classmethod
    def of_groups(cls, module: nn.GroupNorm) -> Normalization:
        """That of a group norm."""
        return cls(module.eps, 0, module.num_groups)

    @classmethod
    def of_instances(cls, module: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) -> Normalization:
        """That of an instance norm: each channel is a group."""
        return cls(module.eps, 0, module.num_features)

    def row_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape [*, rows, D] for tensors of that shape."""
        if self.num_groups:
            return (shape[0], self.num_groups, math.prod(shape[1:]) // self.num_groups)
        return (*shape[: -self.num_axes], math.prod(shape[-self.num_axes :]))

    def channel_axis(self, rank: int) -> int:
        """The last axis of a layer norm, axis 1 of a group norm."""
        return 1 if self.num_groups else rank - 1

    @property
    def takes_channel_affine(self) -> bool:
        """Whether a row is what one sample has of all channels; then `real` takes their weight and bias."""
        return self.num_groups == 0 and self.num_axes == 1

    def real(self, inputs: tuple[Tensor, ...], weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The normalised rows times `weight` plus `bias`, if these are given; shaped as the input.

        Both in one call keep one tensor for backward where two calls would keep two.
        """
        (x,) = inputs
        rows = x.reshape(self.row_shape(tuple(x.shape)))
        if self.is_centered:
            rows = torch.nn.functional.layer_norm(rows, rows.shape[-1:], weight, bias, self.epsilon)
        else:
            rows = torch.nn.functional.rms_norm(rows, rows.shape[-1:], weight, max(self.epsilon, _LEAST_EPSILON))
            rows = rows if bias is None else rows + bias
        return rows.reshape(x.shape)

    def accumulate(self, inputs: tuple[Tensor, ...], weight: Tensor | None) -> Tensor:
        """The formula above, int64; `weight` is E."""
        (x,) = inputs
        assert weight is not None
        n = x.reshape(self.row_shape(tuple(x.shape))).to(torch.int64)
        length = n.shape[-1]
        total = n.sum(-1, keepdim=True) if self.is_centered else torch.zeros_like(n[..., :1])
        centered = n * length - total
        variance = (n * n).sum(-1, keepdim=True) * length - total * total + weight
        powers = torch.tensor([4**j for j in range(1, MAX_EXPONENT + 1)], device=n.device)
        exponent = (variance >= powers).sum(-1, keepdim=True)
        mantissa = (variance << MANTISSA_BITS) >> 2 * exponent
        roots = root_table().to(n.device)
        root = roots[(mantissa - 2**MANTISSA_BITS).clamp(0, len(roots) - 1)]  # rows that are too long overflow: refused
        u = (centered * root) >> (exponent + RESULT_SHIFT)
        return u.reshape(x.shape)

    def coefficients(self, operands: Operands) -> Epsilon:
        """E = D²·epsilon / scale², at least 1."""
        scale, length = operands.scales[0], self.row_shape(operands.shape)[-1]
        epsilon = torch.round(length * length * self.epsilon / scale.double() ** 2)
        one = torch.ones_like(scale)
        unit = torch.full((1,), 2.0**-FRACTION_BITS, dtype=torch.float64, device=one.device)
        return Epsilon(one, unit, epsilon.clamp(1, 4.0 ** (MAX_EXPONENT - 1)).to(torch.int64))

    def bound(self, magnitudes: Sequence[int], shape: tuple[int, ...], row: int = 0) -> int:
        """No number of D is more than √D standard deviations from their mean, nor √D times their root mean square."""
        length = self.row_shape(shape)[-1]
        return math.ceil(2.0**FRACTION_BITS * math.sqrt(length) * (1 + 2.0**-9)) + 1

    def accumulator_range(
        self, weight: Tensor | None, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """The bound, with either sign."""
        bound = self.bound((), shape)
        return torch.tensor([-bound]), torch.tensor([bound])

    def longest_row(self, magnitude: int) -> int:
        """How long a row of such levels may be so that no intermediate leaves 63 bits: V < 4^25 and c·r < 2^62."""
        largest = 4 ** (MAX_EXPONENT + 1) - 4 ** (MAX_EXPONENT - 1) - 1
        return math.isqrt(largest // max(1, 2 * magnitude * magnitude))

    def weight_range(self, weight: Tensor | None) -> None:
        """Its epsilon is no weight."""

    def misfit(self, levels: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> str | None:
        """Whether a row is too long for 63 bits."""
        lo, hi = levels[0]
        found, needed = self.row_shape(shape)[-1], self.longest_row(max(hi, -lo))
        return None if found <= needed else f"it normalises rows of {found} numbers, needed at most {needed} (64 bits)"
