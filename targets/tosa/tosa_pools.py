"""Writing max pools: MAX_POOL2D."""

from __future__ import annotations

from dataclasses import dataclass

from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.channels_last.kernel_product import down_and_right
from ana_fx.targets.tosa.tosa_products import fitted
from ana_fx.targets.tosa.tosa_schema import PROPAGATE, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["write_max_pool"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Windows:
    """What a pool sees."""

    window: Pair
    stride: Pair
    padding: tuple[Pair, Pair]


def write_max_pool(w: TosaWriter, module: IntegerMaxPool) -> HeldTensor:
    """Write MAX_POOL2D, which pads with the lowest byte."""
    channels, *sizes = w.x.shape
    order, image = channels_last(len(w.x.shape)), down_and_right(tuple(sizes), 1)
    windows = _Windows(
        down_and_right(module.kernel, 1), down_and_right(module.stride, 1), down_and_right(module.padding, (0, 0))
    )
    index = w.arranged(w.x, w.x.shape, order)
    index = w.reshape(w.x, index, (*sizes, channels), (*image, channels))
    index, _, padding = fitted(w, index, (*image, channels), windows)
    given = (*down_and_right(w.shape[1:], 1), channels)
    index = w.op(
        Op.MAX_POOL2D,
        [index],
        given,
        kernel=list(windows.window),
        stride=list(windows.stride),
        pad=[each for pair in padding for each in pair],
        nan_mode=PROPAGATE,
    )
    index = w.reshape(w.x, index, given, (*w.shape[1:], channels))
    return w.moved(w.x, index, w.shape, order)
