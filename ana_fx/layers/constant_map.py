"""Tensors of the model that meet its activations: positions, class tokens, masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ana_fx.layers.layer_map import LayerMap
from ana_fx.numerics.scale_search import positive

__all__ = ["ConstantForm", "ConstantMap"]


@dataclass(frozen=True)
class ConstantForm:
    """What a constant deploys: the real value of one level, float32."""

    output_scale: Tensor


class ConstantMap(LayerMap):
    """The quantizer of a tensor that does not depend on the model's inputs; it takes no scales."""

    @property
    def operation(self) -> str:
        """Constant."""
        return "constant"

    def real(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """See the base class."""
        (x,) = tensors
        x = x if x.is_floating_point() else x.float()  # as torch does when integers or a mask meet floats
        return x if self.output_quantizer is None else self.output_quantizer(x)

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> ConstantForm:
        """See the base class."""
        self._check_calibrated()
        assert self.output_quantizer is not None
        return ConstantForm(positive(self.output_quantizer.scale))

    def deployed(self, tensors: tuple[Tensor, ...], form: ConstantForm, scales: tuple[Tensor, ...]) -> Tensor:
        """See the base class."""
        assert self.output_quantizer is not None
        return self.output_quantizer.quantize(tensors[0]) * form.output_scale
