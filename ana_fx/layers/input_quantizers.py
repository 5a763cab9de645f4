"""The quantizers of a model's inputs, numbers or images, which have no noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ana_fx.errors import CalibrationError
from ana_fx.kernels.exact_maps import round_input, rounds_at_once
from ana_fx.layers.quantizers import UNKNOWN_SCALE, Quantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive
from ana_fx.precision.image_input import ImageInput
from ana_fx.schedule.schedule import Schedule

__all__ = ["ImageQuantizer", "InputQuantizer"]


class InputQuantizer(Quantizer):
    """The quantizer of a model input: no noise, since nothing before it learns.

    It remembers the shape of one sample, which the exported file declares.
    """

    sample_shape: Tensor
    _MAX_RANK = 8

    def __init__(self, integer_type: IntegerType, schedule: Schedule) -> None:
        super().__init__(integer_type, schedule)
        self.register_buffer("sample_shape", torch.zeros(self._MAX_RANK, dtype=torch.int64))
        self._shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, without the batch, or None before the first one."""
        return self._shape

    def remember_shape(self, shape: tuple[int, ...]) -> None:
        """Take the shape of one sample, without the batch."""
        self._shape = shape
        self.sample_shape.zero_()
        self.sample_shape[: len(shape) + 1] = torch.tensor([len(shape), *shape])

    def forward(self, x: Tensor) -> Tensor:
        """x as multiples of the scale, rounded half to even as QuantizeLinear does."""
        if not self.is_calibrated:
            if not self.training:
                raise CalibrationError(UNKNOWN_SCALE.format(f"the model input ({self.name})"))
            self._calibrate_on_first_batch(x)
        if self._shape is None:
            self.remember_shape(tuple(x.shape[1:]))
        if rounds_at_once(x, self.scale):
            return round_input(x, self.scale, self._lowest, self.integer_type.qmax, keeps_nan=self.training)
        scale = positive(self.scale)
        levels = self._without_nan(torch.round(x.float() / scale), self._lowest)
        return levels.clamp(self._lowest, self.integer_type.qmax) * scale

    def _without_nan(self, levels: Tensor, lowest: int) -> Tensor:
        """What is deployed takes NaN for the lowest level, as onnxruntime does; in training it stays, to be seen."""
        return levels if self.training else levels.nan_to_num(nan=float(lowest))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        rank, *sizes = self.sample_shape.tolist()
        self._shape = tuple(sizes[:rank]) if rank else None

    def real(self, levels: Tensor) -> Tensor:
        """Inputs that have these levels."""
        return levels * self.scale.detach()


class ImageQuantizer(InputQuantizer):
    """The quantizer of an image: the pixel that the user's normalisation had, less the zero point.

    `gain` · x + `shift` is the pixel; both are [channels, 1, 1] or [1, 1, 1].
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, image: ImageInput, schedule: Schedule) -> None:
        super().__init__(image.integer_type, schedule)
        self.zero_point = image.zero_point
        self.register_buffer("gain", torch.tensor(image.std).reshape(-1, 1, 1) * 255)
        self.register_buffer("shift", torch.tensor(image.mean).reshape(-1, 1, 1) * 255)
        self.set_scale(torch.tensor(image.scale))

    def remember_shape(self, shape: tuple[int, ...]) -> None:
        """Take the shape of one sample.

        Raises:
            CalibrationError: It is no image, so that `gain` and `shift` would meet other axes than its channels.
        """
        if len(shape) != 3:
            raise CalibrationError(
                f"input=ImageInput(...) found samples of shape {shape}, needed images (channels, height, width); "
                f"give the input another type in Precision, such as input='auto'"
            )
        super().remember_shape(shape)

    def forward(self, x: Tensor) -> Tensor:
        """x as multiples of the scale, from the nearest pixel."""
        if self._shape is None:
            self.remember_shape(tuple(x.shape[1:]))
        pixels = self._without_nan(torch.round(x.float() * self.gain + self.shift), 0).clamp(0, 255)
        return (pixels - self.zero_point) * positive(self.scale)

    def real(self, levels: Tensor) -> Tensor:
        """Inputs that have these levels."""
        return (levels + self.zero_point - self.shift) / self.gain
