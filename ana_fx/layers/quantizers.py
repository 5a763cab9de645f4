"""The quantizer as a module: its scale, how that is found, and the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ana_fx.kernels.bins import NoiseReader
from ana_fx.kernels.blocked_norm import NormNumbers, normalize_and_quantize
from ana_fx.kernels.blocked_quantizer import blocked_fake_quantize, is_blocked
from ana_fx.kernels.fused_quantizer import Grid, fused_fake_quantize, is_usual
from ana_fx.kernels.triton_launch import has_kernels
from ana_fx.layers.fake_quantize import fake_quantize, quantize
from ana_fx.numerics.codebook import Codebook
from ana_fx.numerics.first_scale import clipped_scale, first_scale
from ana_fx.numerics.float32 import Float32Module
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import positive
from ana_fx.precision.rounding import Rounding
from ana_fx.schedule.schedule import NoiseConstants, Schedule

__all__ = ["UNKNOWN_SCALE", "ClipRange", "Quantizer"]

UNKNOWN_SCALE = (
    "the scale of {} is not known yet: found no calibration data, no batch norm and no training batch to take it from, "
    "or nothing but zeros in them; run a batch through the model in train(), give prepare(..., calibration=batches), "
    "or call set_scale() of a quantizer whose numbers are always zero"
)


@dataclass(frozen=True)
class ClipRange:
    """The reals that an activation lets through: ReLU is [0, ∞), ReLU6 [0, 6]."""

    minimum: float = -torch.inf
    maximum: float = torch.inf

    def __post_init__(self) -> None:
        if not self.minimum <= 0.0 <= self.maximum:
            raise ValueError(f"a clip range holds zero, got [{self.minimum}, {self.maximum}]")

    def __and__(self, other: ClipRange) -> ClipRange:
        return ClipRange(max(self.minimum, other.minimum), min(self.maximum, other.maximum))

    def __str__(self) -> str:
        if self.minimum == 0:
            return "relu" if self.maximum == torch.inf else f"relu{self.maximum:g}"
        return f"clip[{self.minimum:g}, {self.maximum:g}]"


class Quantizer(Float32Module):
    """A linear quantizer with annealed noise.

    `scale` is 0-dimensional, or has one number for each channel of axis 0 with trailing axes of
    size 1. It is a parameter, which learns only if `learn_scale`; so quantizers that share it keep
    sharing it when the model moves. The first batch that is not all zeros sets it if nothing else has.

    Args:
        integer_type: The levels.
        schedule: Family and strategy of the noise.
        rounding: Nearest or floor.
        clip_range: What the activation before the quantizer lets through.
        scale_shape: Shape of the scale.
        learn_scale: Whether the scale is trained.
        fills_range: Whether the scale is found so small that no level lies above the clip range.
    """

    mean: Tensor
    std: Tensor
    calibrated: Tensor

    def __init__(
        self,
        integer_type: IntegerType,
        schedule: Schedule,
        rounding: Rounding = Rounding.NEAREST,
        clip_range: ClipRange = ClipRange(),
        scale_shape: tuple[int, ...] = (),
        learn_scale: bool = False,
        fills_range: bool = False,
    ) -> None:
        super().__init__()
        self.name = "a quantizer"  # where it stands in the model, for messages
        self.integer_type = integer_type
        self.fills_range = fills_range
        self.rounding = rounding
        self.clip_range = clip_range
        self.shape_noise(schedule.constants()._replace(mean=0.0))
        self.scale = nn.Parameter(torch.ones(scale_shape), requires_grad=learn_scale)
        self.shares_scale = False
        self.output_is_kept = True  # by autograd, for the layer that reads it
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.zeros(()))
        self.register_buffer("calibrated", torch.zeros(()))  # 1 or 0, as a float: averages of models have no bools
        self._is_calibrated = False  # mirrors the buffer, so that no step waits for the device
        self._is_settled = False  # the same for compiled graphs, or that one of them has seen its first batch
        self._seen_version = self.calibrated._version
        self.noise_reader = NoiseReader()

    def shape_noise(self, constants: NoiseConstants) -> None:
        """Say of what family the noise is, how wide it can be, and by how much its mean moves the thresholds."""
        self.noise, self.strategy, self.gradient = constants.noise, constants.strategy, constants.gradient
        self.num_neighbours = constants.num_neighbours
        self.offset = self.rounding.offset - constants.threshold_shift
        self._is_usual = is_usual(self.noise, self.strategy, self.num_neighbours, self.gradient)
        self._noise_stays = constants.is_static and constants.half_width == 0.5
        self._grid: Grid | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether the scale is known.

        The buffer is read only if something else wrote it, as an average of models does; a compiled graph cannot ask.
        """
        if torch.compiler.is_compiling():
            return self._is_settled
        if not self._is_calibrated and self.calibrated._version != self._seen_version:
            self._read_calibrated()
        return self._is_calibrated

    def _read_calibrated(self) -> None:
        self._seen_version = self.calibrated._version
        self._is_calibrated = self._is_settled = bool(self.calibrated)

    def share_scale(self, other: Quantizer) -> None:
        """Have one scale with another quantizer: the largest that one of those that share it needs."""
        with torch.no_grad():
            known = [each.scale.detach() for each in (self, other) if each.is_calibrated or each.shares_scale]
            other.scale.copy_(torch.stack(known).amax(0) if known else torch.zeros_like(other.scale))
        self.scale = other.scale
        self.shares_scale = other.shares_scale = True

    def set_scale(self, scale: Tensor) -> None:
        """Set the scale from outside; from now on no batch sets it."""
        with torch.no_grad():
            shaped = scale.reshape(self.scale.shape).to(self.scale)
            self._write_scale(torch.maximum(shaped, self.scale) if self.shares_scale else shaped)
            self.calibrated.fill_(True)
        if not self.training:
            torch.autograd.graph.increment_version(self.scale)  # for the forms that layer maps keep in eval mode
        self._is_calibrated = self._is_settled = True

    def _write_scale(self, scale: Tensor) -> None:
        """Write past autograd: a quantizer that shares the scale may have computed with it in this very step.

        What that one keeps for its gradient is its own, but for the sign of the scale, which stays.
        """
        self.scale.data.copy_(scale)

    @torch.no_grad()
    def calibrate(self, x: Tensor, weights: Tensor | None = None) -> bool:
        """Take the scale with the least squared error on `x`, a row for each of its numbers; `x` may have weights.

        Returns:
            Whether `x` tells one. If it is all zeros once it is clipped, nothing changes.
        """
        scale = clipped_scale(x, self._all_levels, self._clip, max(1, self.scale.numel()), weights)
        if scale is not None:
            self.set_scale(self._filled(scale))
        return scale is not None

    @torch.no_grad()
    def loses(self, x: Tensor) -> bool:
        """Whether numbers that differ all become zero, or all an end of the range."""
        least, most = torch.aminmax(x.float().clamp(*self._clip))
        levels = self.levels()
        first, last = (int(quantize(end, positive(self.scale), levels)) for end in (least, most))
        return bool(least < most) and first == last and first in (0, int(levels.lo), int(levels.hi))

    @property
    def _clip(self) -> tuple[float, float]:
        return self.clip_range.minimum, self.clip_range.maximum

    @property
    def _all_levels(self) -> Levels | Codebook:
        """The levels without what the clip range takes, around which a scale is searched."""
        return Levels(self._lowest, self.integer_type.qmax, self.rounding.offset)

    def _filled(self, scale: Tensor) -> Tensor:
        """The scale, or so small a one that the levels end where the activation does."""
        return scale.clamp_max(self.clip_range.maximum / self.integer_type.qmax) if self.fills_range else scale

    @property
    def _lowest(self) -> int:
        return 0 if self.clip_range.minimum == 0 else self.integer_type.qmin

    def levels(self) -> Levels:
        """The levels that the activation's clip range leaves, as ints, or as tensors if the scale decides."""
        lowest, highest, offset = self._lowest, self.integer_type.qmax, self.offset
        minimum, maximum = self.clip_range.minimum, self.clip_range.maximum
        if maximum == torch.inf and minimum in (0.0, -torch.inf):
            return Levels(lowest, highest, offset)
        scale = positive(self.scale.detach())
        lo = torch.full_like(scale, lowest) if minimum == -torch.inf else torch.round(minimum / scale)
        hi = torch.full_like(scale, highest) if maximum == torch.inf else torch.round(maximum / scale)
        return Levels(lo.clamp(lowest, 0), hi.clamp(0, highest), offset)

    @property
    def codebook(self) -> Codebook | None:
        """The levels and thresholds that are deployed; None where all levels are equally far apart."""
        return None

    def level_of(self, x: Tensor) -> Tensor:
        """The levels of reals, float64, without noise, whatever the device."""
        steps, levels = x / positive(self.scale).double().to(x.device), self.levels()
        return torch.floor(steps + levels.offset).clamp(float(levels.lo), float(levels.hi))

    def grid(self) -> Grid:
        """What a kernel needs to know of the levels."""
        if self._grid is None:  # asked of every weight in every step
            self._grid = Grid(self._lowest, self.integer_type.qmax, self.offset, *self._clip)
        return self._grid

    def quantize(self, x: Tensor) -> Tensor:
        """The levels of `x` without noise, as float32 integers."""
        return quantize(x, positive(self.scale), self.levels())

    def forward(self, x: Tensor) -> Tensor:
        """The noisy quantizer; float32, shaped as `x`."""
        if not self.is_calibrated:
            self._calibrate_on_first_batch(x)
        return self._noisy(x, *self.numbers())

    def behind_norm(self, x: Tensor, norm: NormNumbers) -> Tensor:
        """`forward` of what a batch norm makes of `x`, on CPUs, once the scale is known.

        Args:
            x: Float32, [batch, channels, *size], of which `is_blocked` holds.
            norm: What the norm computes with.
        """
        scale, mean, std = self.numbers()
        return normalize_and_quantize(
            x,
            norm,
            scale,
            self.noise_reader.read(mean, std),
            grid=self.grid(),
            scale_gradient=self.scale_gradient(x) if scale.requires_grad else 1.0,
            output_is_kept=self.output_is_kept,
        )

    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, mean and standard deviation; looked up where modules keep them, which is ten times as fast."""
        buffers = self._buffers
        return self._parameters["scale"], buffers["mean"], buffers["std"]  # type: ignore[return-value]  # none is None

    def is_fused(self, x: Tensor) -> bool:
        """Whether a GPU's kernel quantises these numbers."""
        return self._is_usual and has_kernels(x)

    def is_blocked(self, x: Tensor) -> bool:
        """Whether a CPU quantises these numbers block by block."""
        return self._is_usual and is_blocked(x)

    def scale_gradient(self, x: Tensor) -> float:
        """The factor of the scale's gradient, if it quantises `x` (Esser et al. 2020, section 2.2)."""
        scale, *_ = self.numbers()
        return float((x.numel() / scale.numel() * self.integer_type.qmax) ** -0.5)

    def as_it_is(self) -> Callable[[Tensor], Tensor]:
        """`forward` with the scale and the noise of this moment, whatever becomes of them; without gradients."""
        scale, mean, std = (tensor.detach().clone() for tensor in (self.scale, self.mean, self.std))
        return partial(self._noisy, scale=scale, mean=mean, std=std)

    def _noisy(self, x: Tensor, scale: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        scale_gradient = self.scale_gradient(x) if scale.requires_grad else 1.0
        if self.is_fused(x):
            return fused_fake_quantize(
                x,
                scale,
                mean,
                std,
                grid=self.grid(),
                scale_gradient=scale_gradient,
                noise_stays=self._noise_stays,
            )
        if self.is_blocked(x):
            return blocked_fake_quantize(
                x,
                scale,
                self.noise_reader.read(mean, std),
                grid=self.grid(),
                scale_gradient=scale_gradient,
            )
        return fake_quantize(
            x,
            positive(scale),
            mean,
            std,
            levels=self.levels(),
            noise=self.noise,
            strategy=self.strategy,
            num_neighbours=self.num_neighbours,
            scale_gradient=scale_gradient,
            gradient=self.gradient,
        )

    def _calibrate_on_first_batch(self, x: Tensor) -> None:
        """Take the scale that the batch tells, if it tells one; a compiled model asks its first batch only."""
        is_shared = self.shares_scale  # outside of no_grad, which a compiled graph would not leave after an error
        found = first_scale(x, self.scale, self._all_levels, self._clip, is_shared=is_shared, name=self.name)
        with torch.no_grad():
            tells = found.amax() > 0
            self._write_scale(torch.where(tells, self._filled(found), self.scale))
            self.calibrated.copy_(tells)
        self._is_settled = torch.compiler.is_compiling()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._read_calibrated()

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"{self.integer_type}, {self.noise.name}, {self.strategy.value}, {self.rounding.value}"
