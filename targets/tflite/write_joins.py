"""Writing what joins tensors, and max pools."""

from __future__ import annotations

from ana_fx.program.data_movement import Concat
from ana_fx.program.integer_modules import IntegerMaxPool
from ana_fx.targets.channels_last.held_tensor import HeldTensor, channels_last
from ana_fx.targets.tflite.schema import Activation, Code, Padding
from ana_fx.targets.tflite.tflite_writer import TfliteWriter
from ana_fx.targets.tflite.write_pads import kernel_padding, write_pad

__all__ = ["write_concat", "write_max_pool"]

_LOWEST = -128


def write_concat(w: TfliteWriter, module: Concat) -> HeldTensor:
    """Write CONCATENATION along the axis of the file that is the program's."""
    shapes = [x.shape for x in w.inputs]
    order = w.x.order if all(x.image == x.shape for x in w.inputs) else tuple(range(len(w.shape)))
    indices = [w.arranged(x, shape, order) for x, shape in zip(w.inputs, shapes, strict=True)]
    axis = 1 + order.index(module.axis - 1)
    dims = tuple(w.shape[each] for each in order)
    return w.held(w.op(Code.CONCATENATION, indices, dims, axis=axis), w.shape, order)


def write_max_pool(w: TfliteWriter, module: IntegerMaxPool) -> HeldTensor:
    """Write MAX_POOL_2D, behind a PADV2 with the lowest byte where it cannot pad itself."""
    x, is_row = w.x, len(module.kernel) == 1
    channels, *sizes = x.shape
    height, width = (1, *sizes) if is_row else sizes
    kernel, stride = ((1, *module.kernel), (1, *module.stride)) if is_row else (module.kernel, module.stride)
    pads = ((0, 0), *module.padding) if is_row else module.padding
    order, scales = channels_last(len(x.shape)), w.scales_of(x)
    index = w.arranged(x, x.shape, order)
    dims: tuple[int, ...] = (height, width, channels)
    index = w.reshaped(index, (*sizes, channels), dims, scales)
    padding = kernel_padding((height, width), (pads[0], pads[1]), (kernel[0], kernel[1]), (stride[0], stride[1]))
    if padding is None:
        fill = None if x.lo == 0 else _LOWEST
        index, dims = write_pad(w, index, dims, [*pads, (0, 0)], scales, fill)
        padding = Padding.VALID
    given = (*w.shape[1:], channels)
    index = w.op(
        Code.MAX_POOL_2D,
        [index],
        (1, *given) if is_row else given,
        scales,
        padding=padding,
        stride_h=stride[0],
        stride_w=stride[1],
        filter_height=kernel[0],
        filter_width=kernel[1],
        fused_activation_function=Activation.NONE,
    )
    index = w.reshaped(index, (1, *given) if is_row else given, given, scales)
    return w.moved(x, index, w.shape, order)
