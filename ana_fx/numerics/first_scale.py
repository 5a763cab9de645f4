"""The scale that a training batch tells, as one operation, so that torch.compile need not follow how it is found."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ana_fx.errors import CalibrationError
from ana_fx.numerics.codebook import Codebook, codebook_scale
from ana_fx.numerics.levels import Levels
from ana_fx.numerics.scale_search import least_squares_scale

__all__ = ["clipped_scale", "first_scale"]


def clipped_scale(
    x: Tensor,
    levels: Levels | Codebook,
    clip: tuple[float, float],
    num_rows: int = 1,
    weights: Tensor | None = None,
) -> Tensor | None:
    """The scale with the least squared error on `x` once it is clipped, for each row; None if that is all zeros."""
    lowest, highest = clip
    if isinstance(levels, Levels) and not levels.lo:
        lowest = max(lowest, 0.0)
    clipped = x.detach().float()
    if (lowest, highest) != (-torch.inf, torch.inf):  # else a weight would be copied for nothing
        clipped = clipped.clamp(lowest, highest)
    if not bool(clipped.any()):
        return None
    rows = clipped.reshape(num_rows, -1)
    if isinstance(levels, Codebook):
        return codebook_scale(rows, levels, None if weights is None else weights.reshape(rows.shape))
    return least_squares_scale(rows, levels, None if weights is None else weights.reshape(rows.shape))


def first_scale(
    x: Tensor, scale: Tensor, levels: Levels | Codebook, clip: tuple[float, float], *, is_shared: bool, name: str
) -> Tensor:
    """The scale that a quantizer takes from the first batch that tells one, from that of the first process.

    Args:
        x: What reaches the quantizer.
        scale: The scale so far, which tells the shape.
        levels: Levels of the quantizer, as ints, or its codebook.
        clip: What the activation lets through.
        is_shared: Whether others have this scale too: then none is taken that is smaller, and zeros take theirs.
        name: What the quantizer is called in messages.

    Returns:
        Shaped as `scale`; zeros if the batch tells none, because all that the quantizer sees of it is zero.

    Raises:
        CalibrationError: The batch holds NaN or infinite numbers, here or in the first process.
    """
    values, thresholds = levels if isinstance(levels, Codebook) else ((int(levels.lo), int(levels.hi)), ())
    offset = levels.offset if isinstance(levels, Levels) else 0.0
    found: Tensor = _first_scale(
        x.detach(), scale.detach(), list(values), list(thresholds), offset, *clip, is_shared, name
    )
    return found


@torch.library.custom_op(
    "ana_fx::first_scale",
    mutates_args=(),
    schema="(Tensor x, Tensor scale, int[] values, float[] thresholds, float offset, float minimum, float maximum, "
    "bool is_shared, str name) -> Tensor",
)
def _first_scale(
    x: Tensor,
    scale: Tensor,
    values: list[int],
    thresholds: list[float],
    offset: float,
    minimum: float,
    maximum: float,
    is_shared: bool,
    name: str,
) -> Tensor:
    is_finite = bool(torch.isfinite(x).all())
    levels: Levels | Codebook = Levels(values[0], values[-1], offset)
    if thresholds:
        levels = Codebook(tuple(values), tuple(thresholds))
    told = clipped_scale(x, levels, (minimum, maximum), max(1, scale.numel())) if is_finite else None
    found = torch.zeros_like(scale) if told is None else told.reshape(scale.shape).to(scale)
    if not is_finite:
        found.fill_(torch.nan)
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(found, src=0)
    if not is_finite or bool(found.isnan().any()):
        raise CalibrationError(
            f"the first training batch sets the scale of {name}, and what reaches it holds NaN or infinite numbers; "
            f"needed finite ones; look at the batch and at the layers before, or give prepare(..., calibration=batches)"
        )
    return torch.maximum(found, scale) if is_shared else found


@_first_scale.register_fake
def _(x: Tensor, scale: Tensor, *_settings: object) -> Tensor:
    return torch.empty_like(scale)
