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
    image = (1,) if is_matrix else (1, 1, channels_in)
    weight_shape = {Code.FULLY_CONNECTED: (CHANNELS, 1), Code.CONV_2D: (CHANNELS, 1, 1, 1)}.get(
        code, (1, 1, 1, CHANNELS)
    )
    x = builder.tensor("x", image, Scales(X_SCALE, X_ZERO))
    weight = builder.constant("w", np.ones(weight_shape, np.int8), Scales(weight_scale, 0, axis), is_int4=is_int4)
    added = builder.constant("b", bias, Scales(weight_scale * X_SCALE))
    y = builder.tensor("y", (*image[:-1], CHANNELS), Scales(Y_SCALE, zero_point))
    builder.inputs["x"], builder.outputs["y"] = x, y
    options: dict[str, Any] = {"fused_activation_function": activation}
    if not is_matrix:
        options |= {"padding": Padding.VALID, "stride_w": 1, "stride_h": 1}
        options |= {"dilation_w_factor": 1, "dilation_h_factor": 1} | ({"depth_multiplier": 1} if is_depthwise else {})
    builder.operator(code, [x, weight, added], y, **options)
    fed = np.broadcast_to(every_byte.reshape(-1, *[1] * len(image)), (256, *image)).copy()
    accumulators = every_byte.astype(np.int64)[:, None] - X_ZERO + bias
    return OneOperator(builder.pack("one", {}), fed, accumulators, weight_scale)


def one_add(x_scale: np.float32, y_scale: np.float32) -> tuple[bytes, dict[str, Array]]:
    """A sum of every two bytes."""
    builder = ModelBuilder()
    a, b = (builder.tensor(name, (256,), Scales(x_scale, 0)) for name in "ab")
    y = builder.tensor("y", (256,), Scales(y_scale, 0))
    builder.inputs.update(a=a, b=b)
    builder.outputs["y"] = y
    builder.operator(Code.ADD, [a, b], y, fused_activation_function=Activation.NONE)
    first, second = np.meshgrid(np.arange(-128, 128, dtype=np.int8), np.arange(-128, 128, dtype=np.int8))
    return builder.pack("one", {}), {"a": first, "b": second}
