"""The normalisation of an image as a layer map: from pixels to the numbers that the float model takes."""

from __future__ import annotations

import torch
from torch import nn

from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.convolution import Convolution
from ana_fx.precision.image_input import ImageInput

__all__ = ["ImageNormalization"]

_LARGEST = 127


class ImageNormalization(OperatorMap):
    """(pixel / 255 − mean) / std for each channel, a 1×1 depthwise convolution; it has eight bits and learns nothing.

    Its output's scale follows from the normalisation: the level farthest from 0 is what a black or a white pixel gives.

    Args:
        image: How the model's images are normalised.
    """

    has_own_scale = True

    def __init__(self, image: ImageInput) -> None:
        num_channels = max(len(image.mean), len(image.std))
        mean, std = (
            torch.tensor(each, dtype=torch.float64).expand(num_channels).clone() for each in (image.mean, image.std)
        )
        super().__init__(
            Convolution(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=num_channels),
            nn.Parameter((1 / std).float().reshape(-1, 1, 1, 1), requires_grad=False),
            nn.Parameter((-mean / std).float(), requires_grad=False),
        )
        self.farthest = float(torch.maximum(mean / std, (1 - mean) / std).max())

    @property
    def operation(self) -> str:
        """What it is to a user."""
        return "image normalisation"

    @property
    def learns_weight(self) -> bool:
        """It does not."""
        return False

    def output_type(self, wanted: IntegerType, *, is_nonnegative: bool, has_bytes: bool) -> IntegerType:
        """Eight bits, whatever the precision says: a byte has no fewer."""
        return IntegerType(bits=8, signed=True)

    def weight_type(self, wanted: IntegerType) -> IntegerType:
        """Eight bits, in which the one weight of a channel is exact."""
        return IntegerType(bits=8, signed=True, narrow=True)

    def settle_scale(self, quantizer: Quantizer) -> None:
        """The scale that holds black and white."""
        quantizer.set_scale(torch.tensor(self.farthest / _LARGEST))
