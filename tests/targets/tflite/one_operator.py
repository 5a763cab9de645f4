"""Files with one operator, whose accumulators lie next to ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ana_fx.targets.tflite.model_builder import ModelBuilder, Scales
from ana_fx.targets.tflite.schema import Activation, Code, Padding

Array = np.ndarray[Any, Any]

CHANNELS = 64
X_SCALE, Y_SCALE = np.float32(2.0**-5), np.float32(2.0**-3)  # so that half of the slopes are powers of two: exact ties
X_ZERO = 3


@dataclass(frozen=True)
class OneOperator:
    """A file, an input for it, and what reaches its requantizer.

    Args:
        data: The file.
        x: All 256 bytes.
        accumulators: Bias included, int64, [256, channels].
        weight_scale: Float32, [channels].
    """

    data: bytes
    x: Array
    accumulators: Array
    weight_scale: Array

    @property
    def slope32(self) -> Array:
        return (X_SCALE * self.weight_scale) / Y_SCALE

    @property
    def slope64(self) -> Array:
        return np.float64(X_SCALE) * self.weight_scale.astype(np.float64) / np.float64(Y_SCALE)


def one_product(code: Code, zero_point: int, activation: Activation, *, is_int4: bool = False) -> OneOperator:
    """A product of each byte with 1, and a bias that moves it next to a tie."""
    rng = np.random.default_rng(0)
    slope = 2.0 ** -rng.uniform(1, 12, CHANNELS)
    slope[::2] = 2.0 ** -rng.integers(1, 12, CHANNELS // 2)
    weight_scale = (slope * Y_SCALE / X_SCALE).astype(np.float32)
    bias = np.round((rng.integers(-40, 40, CHANNELS) + 0.5) / slope).astype(np.int32)
    builder, every_byte = ModelBuilder(), np.arange(-128, 128, dtype=np.int8)
    is_depthwise, is_matrix = code is Code.DEPTHWISE_CONV_2D, code is Code.FULLY_CONNECTED
    channels_in, axis = (CHANNELS, 3) if is_depthwise else (1, 0)
    is_transposed = code is Code.TRANSPOSE_CONV
    image = (1,) if is_matrix else (1, 1, channels_in)
    weight_shape = {Code.FULLY_CONNECTED: (CHANNELS, 1), Code.DEPTHWISE_CONV_2D: (1, 1, 1, CHANNELS)}.get(
        code, (CHANNELS, 1, 1, 1)
    )
    x = builder.tensor("x", image, Scales(X_SCALE, X_ZERO))
    weight = builder.constant("w", np.ones(weight_shape, np.int8), Scales(weight_scale, 0, axis), is_int4=is_int4)
    added = builder.constant("b", bias, Scales(weight_scale * X_SCALE))
    y = builder.tensor("y", (*image[:-1], CHANNELS), Scales(Y_SCALE, zero_point))
    builder.inputs["x"], builder.outputs["y"] = x, y
    options: dict[str, Any] = {} if is_transposed else {"fused_activation_function": activation}
    if is_transposed:
        options |= {"padding": Padding.VALID, "stride_w": 1, "stride_h": 1}
    elif not is_matrix:
        options |= {"padding": Padding.VALID, "stride_w": 1, "stride_h": 1}
        options |= {"dilation_w_factor": 1, "dilation_h_factor": 1} | ({"depth_multiplier": 1} if is_depthwise else {})
    reads = [x, weight, added]
    if is_transposed:
        reads = [builder.constant("shape", np.array([1, 1, 1, CHANNELS], np.int32)), weight, x, added]
        builder.takes_one_sample = True
    builder.operator(code, reads, y, **options)
    fed = np.broadcast_to(every_byte.reshape(-1, *[1] * len(image)), (256, *image)).copy()
    accumulators = every_byte.astype(np.int64)[:, None] - X_ZERO + bias
    return OneOperator(builder.pack("one", {}), fed, accumulators, weight_scale)


def one_pair(
    code: Code, scales: tuple[np.float32, ...], zero_points: tuple[int, int, int] = (0, 0, 0), width: int = 256
) -> tuple[bytes, dict[str, Array]]:
    """A sum or product of every two bytes; of width 1 the second ones broadcast."""
    builder = ModelBuilder()
    of = [Scales(scale, point) for scale, point in zip(scales, zero_points, strict=True)]
    a, b, y = (builder.tensor(name, (n,), each) for name, n, each in zip("aby", (256, width, 256), of, strict=True))
    builder.inputs.update(a=a, b=b)
    builder.outputs["y"] = y
    builder.operator(code, [a, b], y, fused_activation_function=Activation.NONE)
    first, second = np.meshgrid(np.arange(-128, 128, dtype=np.int8), np.arange(-128, 128, dtype=np.int8))
    return builder.pack("one", {}), {"a": first, "b": np.ascontiguousarray(second[:, :width])}
