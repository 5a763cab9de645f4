"""Tensors of the model that meet its activations: positions, class tokens, masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.layers.layer_map import LayerMap
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.numerics.scale_search import positive

__all__ = ["ConstantForm", "ConstantMap"]


@dataclass(frozen=True)
class ConstantForm:
    """What a constant deploys: the real value of one level, float32."""

    output_scale: Tensor


class ConstantMap(LayerMap):
    """The quantizer of a tensor that does not depend on the model's inputs; it takes no scales.

    Args:
        never_negative: Whether the tensor has no negative number, and learns none.
    """

    kind = "constant"
    takes_scales = False

    def __init__(self, *, never_negative: bool = False) -> None:
        super().__init__()
        self.never_negative = never_negative

    def is_nonnegative(self, *, inputs_are: bool) -> bool:
        """What its tensor is."""
        return self.never_negative

    def output_type(self, wanted: IntegerType, *, is_nonnegative: bool, has_bytes: bool) -> IntegerType:
        """Eight bits, whatever the precision says."""
        return IntegerType(bits=8, signed=not is_nonnegative)

    @property
    def operation(self) -> str:
        """Constant."""
        return "constant"

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """The tensor, quantised."""
        (x,) = tensors
        x = x if x.is_floating_point() else x.float()  # as torch does when integers or a mask meet floats
        return x if self.output_quantizer is None else self.output_quantizer(x)

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> ConstantForm:
        """The scale alone: the tensor may be a part of the model that still changes."""
        self._check_calibrated()
        assert self.output_quantizer is not None
        return ConstantForm(positive(self.output_quantizer.scale))

    def deployed(self, tensors: tuple[Tensor, ...], form: ConstantForm, scales: tuple[Tensor, ...]) -> Tensor:
        """The tensor's levels times the scale."""
        assert self.output_quantizer is not None
        return self.output_quantizer.quantize(tensors[0]) * form.output_scale
