"""Which levels a module of a program gives: its own, or those that it reads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ana_fx.program.data_movement import Movement
from ana_fx.program.integer_layers import IntegerMap, IntegerThresholds
from ana_fx.program.integer_modules import IntegerConstant, IntegerMaxPool, IntegerSoftmax, IntegerTable, Repeat
from ana_fx.program.program_borders import Quantize
from ana_fx.program.tensor_spec import LevelRange, TensorSpec

__all__ = ["levels_given"]

_SOURCES = (Quantize, IntegerConstant, IntegerMap, IntegerSoftmax, IntegerTable, IntegerThresholds)


def levels_given(module: nn.Module, inputs: Sequence[TensorSpec]) -> LevelRange | None:
    """The levels of what a module gives; None for reals, and for logits, whose scale their dequantize has.

    Args:
        module: A module of a program.
        inputs: What is known of its inputs.

    Raises:
        ValueError: Inputs that are joined have different scales.
    """
    if isinstance(module, _SOURCES):
        return module.level_range
    if isinstance(module, Repeat):
        return inputs[0].levels  # the second input tells how many samples there are
    if not isinstance(module, (IntegerMaxPool, Movement)):
        return None
    known = [each.levels for each in inputs if each.levels is not None]
    return LevelRange.union(known) if known else None
