"""Writing what makes images larger: TRANSPOSE_CONV2D and RESIZE."""

from __future__ import annotations

from ana_fx.targets.arrays_of_tensors import numpy
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.channels_last.kernel_product import down_and_right, turned_around
from ana_fx.targets.channels_last.upsamplings import NearestResize, SpreadConvolution
from ana_fx.targets.tosa.tosa_moves import sliced
from ana_fx.targets.tosa.tosa_products import bias_of, constants_of
from ana_fx.targets.tosa.tosa_rescale import requantized
from ana_fx.targets.tosa.tosa_schema import NEAREST, DataType, Op
from ana_fx.targets.tosa.tosa_writer import TosaWriter

__all__ = ["write_resize", "write_transposed"]


def write_resize(w: TosaWriter, form: NearestResize) -> HeldTensor:
    """Write RESIZE by whole factors f: at (2 · i − f + 1) / 2f, for which no two neighbours are equally near."""
    channels, height, width = w.x.shape
    order, (down, right) = channels_last(3), form.factors
    shapes = [
        w.dims((2 * down, 2, 2 * right, 2), "scale"),
        w.dims((1 - down, 1 - right), "offset"),
        w.dims((down - 1, right - 1), "border"),
    ]
    x = w.arranged(w.x, w.x.shape, order)
    index = w.op(Op.RESIZE, [x, *shapes], (height * down, width * right, channels), mode=NEAREST)
    return w.moved(w.x, index, w.shape, order)


def write_transposed(w: TosaWriter, form: SpreadConvolution) -> HeldTensor:
    """Write TRANSPOSE_CONV2D, whose negative padding drops rows, and SLICE for more.

    Its weight has zeros for groups and dilation.
    """
    channels, *sizes = w.x.shape
    num_outputs, *wanted = w.shape
    image, result = down_and_right(tuple(sizes), 1), down_and_right(tuple(wanted), 1)
    strides, margins = down_and_right(form.strides, 1), down_and_right(form.margins, 0)
    x = w.arranged(w.x, w.x.shape, channels_last(len(w.x.shape)))
    x = w.reshape(w.x, x, (*sizes, channels), (*image, channels))
    weight = turned_around(numpy(w.module.stored_weight().cpu()), form.convolution)
    pads: list[int] = []
    slices: list[tuple[int, int, int]] = []
    given: list[int] = []
    axes = zip(image, strides, result, margins, weight.shape[1:3], strict=True)
    for size, step, rows, margin, reach in axes:
        reached = (size - 1) * step + reach
        before = max(-margin, 1 - reach)  # a whole kernel is more than padding may drop
        after = max(rows + margin - reached, 1 - reach)
        pads += [before, after]
        slices.append((margin + before, margin + before + rows, 1))
        given.append(reached + before + after)
    dims = (*given, num_outputs)
    inputs = [x, *constants_of(w, weight, bias_of(w, num_outputs))]
    attributes = {"out_pad": pads, "stride": list(strides), "acc_type": DataType.INT32}
    levels = requantized(w, w.int32(Op.TRANSPOSE_CONV2D, inputs, dims, **attributes), dims)
    w.note(Op.TRANSPOSE_CONV2D.name, w.target.requantizer.value)
    index = sliced(w, levels, dims, [*slices, (0, num_outputs, 1)])
    index = w.reshape(None, index, (*result, num_outputs), (*wanted, num_outputs))
    return w.held(index, w.shape, channels_last(len(w.shape)))
