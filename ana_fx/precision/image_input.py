"""Images as a camera gives them: bytes in, although the float model takes normalised numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ana_fx.numerics.integer_type import IntegerType

__all__ = ["ImageInput"]

_WHITE = 255


@dataclass(frozen=True)
class ImageInput:
    """The model takes (pixel / 255 − mean) / std; what is deployed takes the uint8 pixel.

    With one mean and one std for all channels the normalisation is the scale and the zero point of
    the input: x ≈ (pixel − zero_point) · scale, where zero_point = round(255 · mean) moves the
    input by half a step at most. Otherwise it is folded into the first convolutions, exactly. Where these pad, what
    they would have to pad with is no pixel; then a 1×1 depthwise convolution of eight bits goes before them, and rounds
    the normalised image as an int8 input would.

    Args:
        mean: One number, or one for each channel, in [0, 1].
        std: Likewise, positive.

    Raises:
        ValueError: A number is out of range, or the lengths differ.

    Examples:
        >>> ImageInput(mean=0.5, std=0.25).zero_point
        128
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        means, stds = _numbers(mean), _numbers(std)
        length = max(len(means), len(stds))
        if not {len(means), len(stds)} <= {1, length}:
            raise ValueError(f"mean has {len(means)} numbers and std {len(stds)}, needed as many or one")
        if not all(0.0 <= each <= 1.0 for each in means) or not all(each > 0.0 for each in stds):
            raise ValueError(f"mean is in [0, 1] and std positive, got {mean} and {std}; pixels count from 0 to 1")
        object.__setattr__(self, "mean", means if len(set(means)) > 1 else means[:1])
        object.__setattr__(self, "std", stds if len(set(stds)) > 1 else stds[:1])

    @property
    def is_homogeneous(self) -> bool:
        """Whether all channels are normalised alike."""
        return len(self.mean) == len(self.std) == 1

    @property
    def num_channels(self) -> int | None:
        """How many channels it is made for; None if any number."""
        return None if self.is_homogeneous else max(len(self.mean), len(self.std))

    @property
    def zero_point(self) -> int:
        """The pixel that stands for zero."""
        return round(_WHITE * self.mean[0]) if self.is_homogeneous else 0

    @property
    def scale(self) -> float:
        """What the model sees of one step of a pixel."""
        return 1.0 / (_WHITE * self.std[0]) if self.is_homogeneous else 1.0 / _WHITE

    @property
    def integer_type(self) -> IntegerType:
        """The levels: pixels less the zero point."""
        if self.zero_point == 0:
            return IntegerType(bits=8, signed=False)
        return IntegerType(bits=8, signed=True, zero_point=self.zero_point)


def _numbers(given: float | Sequence[float]) -> tuple[float, ...]:
    return (float(given),) if isinstance(given, (int, float)) else tuple(map(float, given))
