"""Layer maps that are one function of each number: a table from level to level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ana_fx.kernels.exact_maps import look_up_levels
from ana_fx.kernels.triton_launch import has_kernels
from ana_fx.layers.function_map import FunctionMap
from ana_fx.layers.layer_map import levels_of
from ana_fx.numerics.scale_search import positive

__all__ = ["Elementwise", "TableForm", "TableMap", "look_up"]

_RECOMPUTED_MODULES = (nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh)
_RECOMPUTED_FUNCTIONS = (F.gelu, F.silu, F.hardswish, torch.sigmoid, torch.tanh)


class Elementwise(nn.Module):
    """A function of each number, with settings, as a module.

    Args:
        function: From a tensor to one of the same shape.
        settings: Its keyword arguments.
    """

    def __init__(self, function: Callable[..., Tensor], **settings: Any) -> None:
        super().__init__()
        self.function = function
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        return self.function(x, **self.settings)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return getattr(self.function, "__name__", str(self.function))


@dataclass(frozen=True)
class TableForm:
    """The output level of each input level.

    Args:
        table: Float32, [1 or channels, levels], lowest input level first.
        lowest: The lowest input level.
        output_scale: The real value of one output level, float32.
    """

    table: Tensor
    lowest: int
    output_scale: Tensor


class TableMap(FunctionMap):
    """A function of each number between quantizers.

    Args:
        function: A module that maps each number by itself; with a parameter of several numbers, one for
            each channel of axis 1 (PReLU).
    """

    kind = "table"

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function
        self._has_steep_points = self._is_steep_somewhere()

    @property
    def operation(self) -> str:
        """The function's name."""
        if isinstance(self.function, Elementwise):
            return f"table of {self.function.extra_repr()}"
        return f"table of {type(self.function).__name__.lower()}"

    def is_nonnegative(self, *, inputs_are: bool) -> bool:
        """Whether the function gives no negative number, whatever it learns."""
        if any(parameter.requires_grad for parameter in self.function.parameters()):
            return False
        return bool((self._evaluate(torch.linspace(-64.0, 64.0, 4097).double()) >= 0).all())

    @property
    def can_recompute(self) -> bool:
        """Whether it can; of functions with one kernel, for which torch keeps a tensor."""
        function = self.function
        if isinstance(function, Elementwise):
            return function.function in _RECOMPUTED_FUNCTIONS and not function.settings.get("inplace")
        return isinstance(function, _RECOMPUTED_MODULES) and not getattr(function, "inplace", False)

    def of_reals(self, x: Tensor) -> Tensor:
        """The function. Where its slope is infinite or there is none, no gradient passes.

        Reals meet a pole with probability 0, levels do not: a small x² is level 0, where 1/√x is cut off to the
        highest level, so that the slope to come is 0, and 0 · ∞ would be NaN.
        """
        if self._has_steep_points:
            x = _PassFinite.apply(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self.function(x)  # type: ignore[no-any-return]  # a module's call is untyped

    @torch.no_grad()
    def integer_form(self, scales: tuple[Tensor, ...], input_shape: tuple[int, ...]) -> TableForm:
        """The entry of each level, evaluated in float64 on the CPU, so that every device has the same table."""
        self._check_calibrated()
        assert self.output_quantizer is not None
        (kind,) = self.input_types
        y_scale = positive(self.output_quantizer.scale)
        x = torch.arange(kind.qmin, kind.qmax + 1, dtype=torch.float64) * positive(scales[0]).double().cpu()
        table = self.output_quantizer.level_of(self._evaluate(x)).float()
        return TableForm(table.to(y_scale.device), kind.qmin, y_scale)

    @torch.enable_grad()
    def _is_steep_somewhere(self) -> bool:
        """Whether the function has no finite slope at a number between -64 and 64."""
        x = torch.linspace(-64.0, 64.0, 8193, dtype=torch.float64, requires_grad=True)  # 0 and ±1 are among them
        y = self._evaluate(x.clone())  # some functions write into what they are given
        return y.requires_grad and not bool(torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all())

    def _evaluate(self, x: Tensor) -> Tensor:
        """The function of float64 numbers, [1 or channels, numbers]; NaN where it has none."""
        parameters = {name: p.detach().double().cpu() for name, p in self.function.named_parameters()}
        num_channels = max((p.numel() for p in parameters.values()), default=1)
        return functional_call(self.function, parameters, (x.expand(1, num_channels, -1),))[0]  # type: ignore[no-any-return]  # untyped in torch

    def deployed(self, tensors: tuple[Tensor, ...], form: TableForm, scales: tuple[Tensor, ...]) -> Tensor:
        """The entries of the levels, times the scale."""
        if has_kernels(tensors[0]):
            return look_up_levels(tensors[0], scales[0], form.table, form.lowest, form.output_scale)
        (levels,) = levels_of(tensors, scales)
        index = (levels.to(torch.int64) - form.lowest).clamp_(0, form.table.shape[1] - 1)  # of NaN, as kernels do
        return look_up(form.table, index) * form.output_scale


class _PassFinite(torch.autograd.Function):
    """The identity, backward too, but for gradients that are no finite numbers, which become zeros."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad.nan_to_num(0.0, 0.0, 0.0)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """The entry of each index, in the row of its channel on axis 1 if there are several rows."""
    if len(table) > 1:
        first = torch.arange(len(table), device=index.device) * table.shape[1]
        index = index + first.reshape(-1, *[1] * (index.ndim - 2))
    return table.flatten()[index]
