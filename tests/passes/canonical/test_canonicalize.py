"""One spelling for each operation, and all that has none refused at once."""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ana_fx
from ana_fx.layers.table_map import Elementwise
from ana_fx.operators.normalization import UnitNorm
from ana_fx.passes.canonical.canonicalize import Canonicalize
from ana_fx.passes.canonical.spellings import spellings
from ana_fx.passes.frontend.trace_model import trace
from tests.graphs import Written, WrittenForTwo, assert_graph, assert_same_numbers, canonical, fused, graph_text

Expression = Callable[..., Any]

VECTOR, SEQUENCE, IMAGE, VOLUME = (4, 6), (4, 3, 12), (4, 3, 8, 8), (4, 3, 4, 4, 4)
FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": lambda: nn.ELU(0.5),
    "celu": lambda: nn.CELU(0.5),
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh_gelu": lambda: nn.GELU("tanh"),
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": lambda: nn.Softplus(2, 3),
    "softshrink": lambda: nn.Softshrink(0.2),
    "hardshrink": lambda: nn.Hardshrink(0.2),
    "threshold": lambda: nn.Threshold(0.1, 0.2),
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
    "mish": nn.Mish,
    "logsigmoid": nn.LogSigmoid,
    "neg": lambda: Elementwise(torch.neg),
    "abs": lambda: Elementwise(torch.abs),
    "square": lambda: Elementwise(torch.square),
    "cube": lambda: Elementwise(torch.pow, exponent=3),
    "exp": lambda: Elementwise(torch.exp),
    "sqrt": lambda: Elementwise(torch.sqrt),
    "rsqrt": lambda: Elementwise(torch.rsqrt),
    "log1p": lambda: Elementwise(torch.log1p),
    "erf": lambda: Elementwise(torch.erf),
    "sin": lambda: Elementwise(torch.sin),
    "cos": lambda: Elementwise(torch.cos),
    "sign": lambda: Elementwise(torch.sign),
    "between": lambda: Elementwise(torch.clamp, min=1.0, max=2.0),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "clip": lambda: nn.Hardtanh(-2.0, 3.0),
    "to_six": lambda: nn.Hardtanh(0.0, 6.0),
    "from_minus_one": lambda: nn.Hardtanh(-1.0, torch.inf),
    "conv1": lambda: nn.Conv1d(3, 6, 3, 2, 1, 1, 3),
    "conv2": lambda: nn.Conv2d(3, 6, (3, 2), (1, 2), (1, 0), (2, 1), 3),
    "bare": lambda: nn.Conv2d(3, 4, 3, padding="same", bias=False),
    "conv3": lambda: nn.Conv3d(3, 4, 2, padding=1),
    "dense": lambda: nn.Linear(6, 5),
    "bias_free": lambda: nn.Linear(6, 5, bias=False),
    "norm": lambda: nn.BatchNorm2d(3, eps=0.5),
    "max1": lambda: nn.MaxPool1d(3, 2, 1),
    "max2": lambda: nn.MaxPool2d((2, 3), 2, (1, 0), 1, ceil_mode=True),
    "max2_default": lambda: nn.MaxPool2d(2),
    "max3": lambda: nn.MaxPool3d(2, dilation=2),
    "avg1": lambda: nn.AvgPool1d(2, 2, 1),
    "avg2": lambda: nn.AvgPool2d((2, 3), 2, 1),
    "avg3": lambda: nn.AvgPool3d(2),
    "adaptive1": lambda: nn.AdaptiveAvgPool1d(4),
    "adaptive2": lambda: nn.AdaptiveAvgPool2d((4, 2)),
    "adaptive3": lambda: nn.AdaptiveAvgPool3d(2),
    "mean": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "drop": lambda: nn.Dropout(0.3),
    "drop1": lambda: nn.Dropout1d(0.3),
    "drop2": lambda: nn.Dropout2d(0.3),
    "drop3": lambda: nn.Dropout3d(0.3),
    "pad1": lambda: nn.ConstantPad1d((1, 2), 0.0),
    "pad2": lambda: nn.ConstantPad2d((1, 2, 0, 3), 0.0),
    "pad3": lambda: nn.ConstantPad3d(1, 0.0),
    "max_to1": lambda: nn.AdaptiveMaxPool1d(4),
    "max_to2": lambda: nn.AdaptiveMaxPool2d((4, 2)),
    "max_to3": lambda: nn.AdaptiveMaxPool3d(2),
    "uneven": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "divided": lambda: nn.AvgPool2d(2, divisor_override=3),
    "up1": lambda: nn.ConvTranspose1d(3, 6, 3, 2, 1, 1, 3, dilation=2),
    "up2": lambda: nn.ConvTranspose2d(3, 4, (3, 2), (1, 2), (1, 0), (0, 1)),
    "up3": lambda: nn.ConvTranspose3d(3, 4, 2, padding=1, bias=False),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "resized": lambda: nn.Upsample((5, 9), mode="bilinear"),
    "layer_norm": lambda: nn.LayerNorm(8),
    "free_layer_norm": lambda: nn.LayerNorm((8, 8), elementwise_affine=False),
    "rms_norm": lambda: nn.RMSNorm(8, eps=1e-3),
    "free_rms_norm": lambda: nn.RMSNorm((8, 8), elementwise_affine=False),
    "group_norm": lambda: nn.GroupNorm(1, 3, eps=1e-3),
    "free_group_norm": lambda: nn.GroupNorm(3, 3, affine=False),
    "unit_norm": lambda: UnitNorm(1e-12),
    "soft": lambda: nn.Softmax(1),
    "prelu": lambda: nn.PReLU(3, init=-0.5),
    **{f"made_{name}": make for name, make in FUNCTIONS.items()},
}

# shape of the input, spelling with modules, other spellings
SPELT: dict[str, tuple[tuple[int, ...], Expression, dict[str, Expression]]] = {
    "relu": (
        IMAGE,
        lambda m, x: m.relu(x),
        {
            "F.relu": lambda m, x: F.relu(x),
            "F.relu(input=)": lambda m, x: F.relu(input=x),
            "F.relu(inplace)": lambda m, x: F.relu(x, inplace=True),
            "F.relu_": lambda m, x: F.relu_(x),
            "torch.relu": lambda m, x: torch.relu(x),
            "torch.relu_": lambda m, x: torch.relu_(x),
            "x.relu": lambda m, x: x.relu(),
            "x.relu_": lambda m, x: x.relu_(),
            "x.clamp(0)": lambda m, x: x.clamp(0),
            "x.clamp(min=0)": lambda m, x: x.clamp(min=0.0),
            "x.clamp_(0)": lambda m, x: x.clamp_(0),
            "x.clip(0)": lambda m, x: x.clip(0),
            "x.clip_(0)": lambda m, x: x.clip_(0),
            "torch.clamp": lambda m, x: torch.clamp(x, 0.0),
            "torch.clamp(min=, max=None)": lambda m, x: torch.clamp(x, min=0, max=None),
            "torch.clip": lambda m, x: torch.clip(x, min=0),
        },
    ),
    "relu6": (
        IMAGE,
        lambda m, x: m.relu6(x),
        {"F.relu6": lambda m, x: F.relu6(x), "F.relu6(inplace)": lambda m, x: F.relu6(x, inplace=True)},
    ),
    "hardtanh": (
        IMAGE,
        lambda m, x: m.hardtanh(x),
        {"F.hardtanh": lambda m, x: F.hardtanh(x), "F.hardtanh_": lambda m, x: F.hardtanh_(x)},
    ),
    "clip": (
        IMAGE,
        lambda m, x: m.clip(x),
        {
            "F.hardtanh": lambda m, x: F.hardtanh(x, -2.0, 3.0),
            "F.hardtanh(min_val=)": lambda m, x: F.hardtanh(x, min_val=-2.0, max_val=3.0),
            "x.clamp": lambda m, x: x.clamp(-2, 3),
            "torch.clip": lambda m, x: torch.clip(x, min=-2, max=3),
        },
    ),
    "to_six": (IMAGE, lambda m, x: m.to_six(x), {"x.clamp": lambda m, x: x.clamp(0, 6)}),
    "from_minus_one": (IMAGE, lambda m, x: m.from_minus_one(x), {"x.clamp(min=)": lambda m, x: x.clamp(min=-1)}),
    "add": (
        IMAGE,
        lambda m, x: x + m.relu(x),
        {
            "operator.add": lambda m, x: operator.add(x, m.relu(x)),
            "operator.iadd": lambda m, x: operator.iadd(x, m.relu(x)),
            "torch.add": lambda m, x: torch.add(x, m.relu(x)),
            "torch.add(other=)": lambda m, x: torch.add(x, other=m.relu(x)),
            "torch.add(input=)": lambda m, x: torch.add(input=x, other=m.relu(x)),
            "torch.add(alpha=1)": lambda m, x: torch.add(x, m.relu(x), alpha=1),
            "x.add": lambda m, x: x.add(m.relu(x)),
            "x.add_": lambda m, x: x.add_(m.relu(x)),
        },
    ),
    "mean": (
        IMAGE,
        lambda m, x: m.flatten(m.mean(x)),
        {
            "x.mean((2, 3))": lambda m, x: x.mean((2, 3)),
            "x.mean([3, 2])": lambda m, x: x.mean([3, 2]),
            "x.mean((-2, -1))": lambda m, x: x.mean((-2, -1)),
            "x.mean(dim=)": lambda m, x: x.mean(dim=(-1, -2)),
            "torch.mean": lambda m, x: torch.mean(x, (2, 3)),
            "torch.mean(dim=)": lambda m, x: torch.mean(x, dim=(2, 3), keepdim=False),
        },
    ),
    "mean with keepdim": (
        IMAGE,
        lambda m, x: m.mean(x),
        {
            "x.mean(keepdim)": lambda m, x: x.mean((2, 3), keepdim=True),
            "x.mean(, True)": lambda m, x: x.mean((2, 3), True),
            "F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, 1),
        },
    ),
    "conv1": (
        SEQUENCE,
        lambda m, x: m.conv1(x),
        {
            "F.conv1d": lambda m, x: F.conv1d(x, m.conv1.weight, m.conv1.bias, 2, 1, 1, 3),
            "torch.conv1d": lambda m, x: torch.conv1d(x, m.conv1.weight, m.conv1.bias, stride=2, padding=1, groups=3),
        },
    ),
    "conv2": (
        IMAGE,
        lambda m, x: m.conv2(x),
        {
            "F.conv2d": lambda m, x: F.conv2d(x, m.conv2.weight, m.conv2.bias, (1, 2), (1, 0), (2, 1), groups=3),
            "F.conv2d(input=)": lambda m, x: F.conv2d(
                input=x,
                weight=m.conv2.weight,
                bias=m.conv2.bias,
                stride=(1, 2),
                padding=(1, 0),
                dilation=(2, 1),
                groups=3,
            ),
            "torch.conv2d": lambda m, x: torch.conv2d(x, m.conv2.weight, m.conv2.bias, (1, 2), (1, 0), (2, 1), 3),
        },
    ),
    "bare": (
        IMAGE,
        lambda m, x: m.bare(x),
        {
            "F.conv2d": lambda m, x: F.conv2d(x, m.bare.weight, padding="same"),
            "F.conv2d(None)": lambda m, x: F.conv2d(x, m.bare.weight, None, 1, "same"),
        },
    ),
    "conv3": (
        VOLUME,
        lambda m, x: m.conv3(x),
        {
            "F.conv3d": lambda m, x: F.conv3d(x, m.conv3.weight, m.conv3.bias, padding=1),
            "torch.conv3d": lambda m, x: torch.conv3d(x, m.conv3.weight, m.conv3.bias, 1, 1),
        },
    ),
    "dense": (
        VECTOR,
        lambda m, x: m.dense(x),
        {"F.linear": lambda m, x: F.linear(x, m.dense.weight, m.dense.bias)},
    ),
    "bias_free": (VECTOR, lambda m, x: m.bias_free(x), {"F.linear": lambda m, x: F.linear(x, m.bias_free.weight)}),
    "norm": (
        IMAGE,
        lambda m, x: m.norm(x),
        {
            "F.batch_norm": lambda m, x: F.batch_norm(
                x,
                m.norm.running_mean,
                m.norm.running_var,
                m.norm.weight,
                m.norm.bias,
                m.norm.training,
                0.1,
                0.5,
            )
        },
    ),
    "max1": (
        SEQUENCE,
        lambda m, x: m.max1(x),
        {
            "F.max_pool1d": lambda m, x: F.max_pool1d(x, 3, 2, 1),
            "torch.max_pool1d": lambda m, x: torch.max_pool1d(x, 3, 2, 1),
        },
    ),
    "max2": (
        IMAGE,
        lambda m, x: m.max2(x),
        {
            "F.max_pool2d": lambda m, x: F.max_pool2d(x, (2, 3), 2, (1, 0), 1, ceil_mode=True),
            "torch.max_pool2d": lambda m, x: torch.max_pool2d(x, (2, 3), 2, (1, 0), 1, True),
        },
    ),
    "max2_default": (
        IMAGE,
        lambda m, x: m.max2_default(x),
        {
            "F.max_pool2d": lambda m, x: F.max_pool2d(x, 2),
            "F.max_pool2d(kernel_size=)": lambda m, x: F.max_pool2d(x, kernel_size=2, stride=2),
        },
    ),
    "max3": (
        VOLUME,
        lambda m, x: m.max3(x),
        {
            "F.max_pool3d": lambda m, x: F.max_pool3d(x, 2, dilation=2),
            "torch.max_pool3d": lambda m, x: torch.max_pool3d(x, 2, 2, 0, 2),
        },
    ),
    "avg1": (
        SEQUENCE,
        lambda m, x: m.avg1(x),
        {
            "F.avg_pool1d": lambda m, x: F.avg_pool1d(x, 2, 2, 1),
            "torch.avg_pool1d": lambda m, x: torch.avg_pool1d(x, 2, 2, 1),
        },
    ),
    "avg2": (
        IMAGE,
        lambda m, x: m.avg2(x),
        {"F.avg_pool2d": lambda m, x: F.avg_pool2d(x, (2, 3), stride=2, padding=1)},
    ),
    "avg3": (VOLUME, lambda m, x: m.avg3(x), {"F.avg_pool3d": lambda m, x: F.avg_pool3d(x, 2)}),
    "adaptive1": (
        SEQUENCE,
        lambda m, x: m.adaptive1(x),
        {
            "F.adaptive_avg_pool1d": lambda m, x: F.adaptive_avg_pool1d(x, 4),
            "torch.adaptive_avg_pool1d": lambda m, x: torch.adaptive_avg_pool1d(x, 4),
        },
    ),
    "adaptive2": (
        IMAGE,
        lambda m, x: m.adaptive2(x),
        {"F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, output_size=(4, 2))},
    ),
    "adaptive3": (
        VOLUME,
        lambda m, x: m.adaptive3(x),
        {"F.adaptive_avg_pool3d": lambda m, x: F.adaptive_avg_pool3d(x, 2)},
    ),
    "drop": (
        IMAGE,
        lambda m, x: m.drop(x),
        {
            "F.dropout": lambda m, x: F.dropout(x, 0.3, m.training),
            "F.dropout(p=)": lambda m, x: F.dropout(x, p=0.3, training=m.training),
            "torch.dropout": lambda m, x: torch.dropout(x, 0.3, m.training),
        },
    ),
    "drop1": (SEQUENCE, lambda m, x: m.drop1(x), {"F.dropout1d": lambda m, x: F.dropout1d(x, 0.3, m.training)}),
    "drop2": (IMAGE, lambda m, x: m.drop2(x), {"F.dropout2d": lambda m, x: F.dropout2d(x, 0.3, m.training)}),
    "drop3": (VOLUME, lambda m, x: m.drop3(x), {"F.dropout3d": lambda m, x: F.dropout3d(x, 0.3, m.training)}),
    "pad1": (SEQUENCE, lambda m, x: m.pad1(x), {"F.pad": lambda m, x: F.pad(x, (1, 2))}),
    "pad2": (
        IMAGE,
        lambda m, x: m.pad2(x),
        {
            "F.pad": lambda m, x: F.pad(x, [1, 2, 0, 3]),
            "F.pad(mode=)": lambda m, x: F.pad(x, (1, 2, 0, 3), mode="constant", value=0),
        },
    ),
    "pad3": (VOLUME, lambda m, x: m.pad3(x), {"F.pad": lambda m, x: F.pad(x, (1, 1, 1, 1, 1, 1))}),
    "copies": (
        IMAGE,
        lambda m, x: m.relu(x),
        {
            "x.contiguous": lambda m, x: m.relu(x.contiguous()),
            "x.clone": lambda m, x: m.relu(x.clone()),
            "torch.clone": lambda m, x: torch.clone(m.relu(x)),
            "x.float": lambda m, x: m.relu(x.float()),
            "x.to(dtype)": lambda m, x: m.relu(x).to(torch.float32),
            "x.to(dtype=)": lambda m, x: m.relu(x.to(dtype=torch.float32)),
            "x.type": lambda m, x: m.relu(x.type(torch.float32)),
            "x.type_as": lambda m, x: m.relu(x.type_as(x)),
        },
    ),
    "sub": (
        IMAGE,
        lambda m, x: x - m.relu(x),
        {
            "operator.isub": lambda m, x: operator.isub(x, m.relu(x)),
            "torch.sub": lambda m, x: torch.sub(x, m.relu(x)),
            "torch.subtract": lambda m, x: torch.subtract(x, other=m.relu(x)),
            "x.sub": lambda m, x: x.sub(m.relu(x)),
            "x.sub_": lambda m, x: x.sub_(m.relu(x)),
        },
    ),
    "mul": (
        IMAGE,
        lambda m, x: x * m.relu(x),
        {
            "operator.imul": lambda m, x: operator.imul(x, m.relu(x)),
            "torch.mul": lambda m, x: torch.mul(x, m.relu(x)),
            "torch.multiply": lambda m, x: torch.multiply(input=x, other=m.relu(x)),
            "x.mul": lambda m, x: x.mul(m.relu(x)),
            "x.mul_": lambda m, x: x.mul_(m.relu(x)),
        },
    ),
    "add a number": (
        IMAGE,
        lambda m, x: x + 0.3,
        {"torch.add": lambda m, x: torch.add(x, 0.3), "x.add_": lambda m, x: x.add_(0.3)},
    ),
    "add a number first": (IMAGE, lambda m, x: 0.3 + x, {"operator.add": lambda m, x: operator.add(0.3, x)}),
    "subtract a number": (IMAGE, lambda m, x: x - 2, {"x.sub": lambda m, x: x.sub(2)}),
    "subtract from a number": (IMAGE, lambda m, x: 2 - x, {"operator.sub": lambda m, x: operator.sub(2, x)}),
    "add a multiple of a number": (IMAGE, lambda m, x: x + 0.5 * 3, {"alpha": lambda m, x: torch.add(x, 0.5, alpha=3)}),
    "multiply by a number": (
        IMAGE,
        lambda m, x: x * 0.3,
        {"torch.mul": lambda m, x: torch.mul(x, 0.3), "x.mul_": lambda m, x: x.mul_(0.3)},
    ),
    "div": (
        IMAGE,
        lambda m, x: x / 3,
        {
            "operator.itruediv": lambda m, x: operator.itruediv(x, 3),
            "torch.div": lambda m, x: torch.div(x, 3),
            "torch.divide": lambda m, x: torch.divide(x, 3),
            "x.div": lambda m, x: x.div(3),
            "x.div_": lambda m, x: x.div_(3),
        },
    ),
    "matmul": (
        IMAGE,
        lambda m, x: torch.matmul(x, m.relu(x)),
        {
            "operator.matmul": lambda m, x: x @ m.relu(x),
            "torch.matmul(other=)": lambda m, x: torch.matmul(x, other=m.relu(x)),
            "x.matmul": lambda m, x: x.matmul(m.relu(x)),
        },
    ),
    "bmm": (
        (4, 5, 5),
        lambda m, x: torch.matmul(x, m.relu(x)),
        {
            "torch.bmm": lambda m, x: torch.bmm(x, m.relu(x)),
            "torch.bmm(mat2=)": lambda m, x: torch.bmm(x, mat2=m.relu(x)),
            "x.bmm": lambda m, x: x.bmm(m.relu(x)),
        },
    ),
    "mean of an axis": (
        IMAGE,
        lambda m, x: torch.mean(x, (1,), False),
        {
            "x.mean(1)": lambda m, x: x.mean(1),
            "x.mean(dim=[1])": lambda m, x: x.mean(dim=[1]),
            "torch.mean": lambda m, x: torch.mean(x, 1, keepdim=False),
        },
    ),
    "mean of tokens": (
        SEQUENCE,
        lambda m, x: torch.mean(x, (1, 2), True),
        {"x.mean": lambda m, x: x.mean((2, 1), keepdim=True)},
    ),
    "sum": (
        IMAGE,
        lambda m, x: torch.sum(x, (2, 3), True),
        {
            "x.sum": lambda m, x: x.sum((3, 2), keepdim=True),
            "torch.sum": lambda m, x: torch.sum(x, dim=[2, 3], keepdim=True),
        },
    ),
    "up1": (
        SEQUENCE,
        lambda m, x: m.up1(x),
        {
            "F.conv_transpose1d": lambda m, x: F.conv_transpose1d(x, m.up1.weight, m.up1.bias, 2, 1, 1, 3, 2),
            "torch.conv_transpose1d": lambda m, x: torch.conv_transpose1d(
                x, m.up1.weight, bias=m.up1.bias, stride=2, padding=1, output_padding=1, groups=3, dilation=2
            ),
        },
    ),
    "up2": (
        IMAGE,
        lambda m, x: m.up2(x),
        {
            "F.conv_transpose2d": lambda m, x: F.conv_transpose2d(x, m.up2.weight, m.up2.bias, (1, 2), (1, 0), (0, 1)),
            "torch.conv_transpose2d": lambda m, x: torch.conv_transpose2d(
                x, m.up2.weight, m.up2.bias, (1, 2), (1, 0), (0, 1)
            ),
        },
    ),
    "up3": (
        VOLUME,
        lambda m, x: m.up3(x),
        {
            "F.conv_transpose3d": lambda m, x: F.conv_transpose3d(x, m.up3.weight, None, 1, 1),
            "torch.conv_transpose3d": lambda m, x: torch.conv_transpose3d(x, m.up3.weight, padding=1),
        },
    ),
    "uneven": (IMAGE, lambda m, x: m.uneven(x), {"F.avg_pool2d": lambda m, x: F.avg_pool2d(x, 3, 2, 1, True, False)}),
    "divided": (IMAGE, lambda m, x: m.divided(x), {"F": lambda m, x: F.avg_pool2d(x, 2, divisor_override=3)}),
    "max_to1": (SEQUENCE, lambda m, x: m.max_to1(x), {"F": lambda m, x: F.adaptive_max_pool1d(x, 4)}),
    "max_to2": (IMAGE, lambda m, x: m.max_to2(x), {"F": lambda m, x: F.adaptive_max_pool2d(x, (4, 2))}),
    "max_to3": (VOLUME, lambda m, x: m.max_to3(x), {"F": lambda m, x: F.adaptive_max_pool3d(x, output_size=2)}),
    "bilinear": (
        IMAGE,
        lambda m, x: m.bilinear(x),
        {"F.interpolate": lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)},
    ),
    "resized": (IMAGE, lambda m, x: m.resized(x), {"F": lambda m, x: F.interpolate(x, (5, 9), mode="bilinear")}),
    "layer_norm": (
        IMAGE,
        lambda m, x: m.layer_norm(x),
        {
            "F.layer_norm": lambda m, x: F.layer_norm(x, (8,), m.layer_norm.weight, m.layer_norm.bias),
            "F.layer_norm(weight=)": lambda m, x: F.layer_norm(
                x, [8], weight=m.layer_norm.weight, bias=m.layer_norm.bias, eps=1e-5
            ),
        },
    ),
    "free_layer_norm": (IMAGE, lambda m, x: m.free_layer_norm(x), {"F": lambda m, x: F.layer_norm(x, (8, 8))}),
    "rms_norm": (
        IMAGE,
        lambda m, x: m.rms_norm(x),
        {"F.rms_norm": lambda m, x: F.rms_norm(x, (8,), m.rms_norm.weight, 1e-3)},
    ),
    "free_rms_norm": (IMAGE, lambda m, x: m.free_rms_norm(x), {"F": lambda m, x: F.rms_norm(x, (8, 8))}),
    "group_norm": (
        IMAGE,
        lambda m, x: m.group_norm(x),
        {"F.group_norm": lambda m, x: F.group_norm(x, 1, m.group_norm.weight, m.group_norm.bias, 1e-3)},
    ),
    "unit_norm": (IMAGE, lambda m, x: m.unit_norm(x), {"F.normalize": lambda m, x: F.normalize(x, dim=-1)}),
    "soft": (
        IMAGE,
        lambda m, x: m.soft(x),
        {
            "F.softmax": lambda m, x: F.softmax(x, 1),
            "F.softmax(dim=)": lambda m, x: F.softmax(x, dim=1, dtype=torch.float32),
            "torch.softmax": lambda m, x: torch.softmax(x, 1),
            "x.softmax": lambda m, x: x.softmax(dim=1),
        },
    ),
    "prelu": (
        IMAGE,
        lambda m, x: m.prelu(x),
        {
            "F.prelu": lambda m, x: F.prelu(x, m.prelu.weight),
            "torch.prelu": lambda m, x: torch.prelu(x, m.prelu.weight),
        },
    ),
    "leaky_relu": (
        IMAGE,
        lambda m, x: m.made_leaky_relu(x),
        {"F": lambda m, x: F.leaky_relu(x, 0.2), "F.leaky_relu_": lambda m, x: F.leaky_relu_(x, negative_slope=0.2)},
    ),
    "elu": (
        IMAGE,
        lambda m, x: m.made_elu(x),
        {"F.elu": lambda m, x: F.elu(x, alpha=0.5), "F.elu_": lambda m, x: F.elu_(x, 0.5)},
    ),
    "celu": (
        IMAGE,
        lambda m, x: m.made_celu(x),
        {"F.celu": lambda m, x: F.celu(x, 0.5), "F.celu_": lambda m, x: F.celu_(x, 0.5)},
    ),
    "selu": (IMAGE, lambda m, x: m.made_selu(x), {"F": lambda m, x: F.selu(x), "F_": lambda m, x: F.selu_(x)}),
    "silu": (
        IMAGE,
        lambda m, x: m.made_silu(x),
        {"F.silu": lambda m, x: F.silu(x), "F.silu(inplace)": lambda m, x: F.silu(x, inplace=True)},
    ),
    "gelu": (IMAGE, lambda m, x: m.made_gelu(x), {"F.gelu": lambda m, x: F.gelu(x)}),
    "tanh_gelu": (IMAGE, lambda m, x: m.made_tanh_gelu(x), {"F": lambda m, x: F.gelu(x, approximate="tanh")}),
    "hardswish": (IMAGE, lambda m, x: m.made_hardswish(x), {"F.hardswish": lambda m, x: F.hardswish(x)}),
    "hardsigmoid": (IMAGE, lambda m, x: m.made_hardsigmoid(x), {"F.hardsigmoid": lambda m, x: F.hardsigmoid(x)}),
    "sigmoid": (
        IMAGE,
        lambda m, x: m.made_sigmoid(x),
        {
            "F.sigmoid": lambda m, x: F.sigmoid(x),
            "torch.sigmoid": lambda m, x: torch.sigmoid(x),
            "x.sigmoid": lambda m, x: x.sigmoid(),
            "x.sigmoid_": lambda m, x: x.sigmoid_(),
        },
    ),
    "tanh": (
        IMAGE,
        lambda m, x: m.made_tanh(x),
        {
            "F.tanh": lambda m, x: F.tanh(x),
            "torch.tanh": lambda m, x: torch.tanh(x),
            "x.tanh": lambda m, x: x.tanh(),
            "x.tanh_": lambda m, x: x.tanh_(),
        },
    ),
    "softplus": (IMAGE, lambda m, x: m.made_softplus(x), {"F.softplus": lambda m, x: F.softplus(x, 2, 3)}),
    "softshrink": (IMAGE, lambda m, x: m.made_softshrink(x), {"F.softshrink": lambda m, x: F.softshrink(x, 0.2)}),
    "hardshrink": (IMAGE, lambda m, x: m.made_hardshrink(x), {"F.hardshrink": lambda m, x: F.hardshrink(x, 0.2)}),
    "threshold": (IMAGE, lambda m, x: m.made_threshold(x), {"F.threshold": lambda m, x: F.threshold(x, 0.1, 0.2)}),
    "softsign": (IMAGE, lambda m, x: m.made_softsign(x), {"F.softsign": lambda m, x: F.softsign(x)}),
    "tanhshrink": (IMAGE, lambda m, x: m.made_tanhshrink(x), {"F.tanhshrink": lambda m, x: F.tanhshrink(x)}),
    "mish": (IMAGE, lambda m, x: m.made_mish(x), {"F.mish": lambda m, x: F.mish(x)}),
    "logsigmoid": (IMAGE, lambda m, x: m.made_logsigmoid(x), {"F.logsigmoid": lambda m, x: F.logsigmoid(x)}),
    "neg": (
        IMAGE,
        lambda m, x: m.made_neg(x),
        {"-x": lambda m, x: -x, "torch.neg": lambda m, x: torch.neg(x), "x.neg": lambda m, x: x.neg()},
    ),
    "abs": (
        IMAGE,
        lambda m, x: m.made_abs(x),
        {"abs": lambda m, x: abs(x), "torch.abs": lambda m, x: torch.abs(x), "x.abs": lambda m, x: x.abs()},
    ),
    "square": (
        IMAGE,
        lambda m, x: m.made_square(x),
        {"torch.square": lambda m, x: torch.square(x), "x.square": lambda m, x: x.square()},
    ),
    "cube": (
        IMAGE,
        lambda m, x: m.made_cube(x),
        {"x ** 3": lambda m, x: x**3, "torch.pow": lambda m, x: torch.pow(x, 3), "x.pow": lambda m, x: x.pow(3)},
    ),
    "exp": (IMAGE, lambda m, x: m.made_exp(x), {"torch": lambda m, x: torch.exp(x), "x": lambda m, x: x.exp()}),
    "sqrt": (
        IMAGE,
        lambda m, x: m.made_sqrt(m.relu(x)),
        {"torch": lambda m, x: torch.sqrt(m.relu(x)), "x": lambda m, x: m.relu(x).sqrt()},
    ),
    "rsqrt": (
        IMAGE,
        lambda m, x: m.made_rsqrt(m.made_exp(x)),
        {"torch": lambda m, x: torch.rsqrt(m.made_exp(x)), "x": lambda m, x: m.made_exp(x).rsqrt()},
    ),
    "log1p": (
        IMAGE,
        lambda m, x: m.made_log1p(m.relu(x)),
        {"torch": lambda m, x: torch.log1p(m.relu(x)), "x": lambda m, x: m.relu(x).log1p()},
    ),
    "erf": (IMAGE, lambda m, x: m.made_erf(x), {"torch": lambda m, x: torch.erf(x), "x": lambda m, x: x.erf()}),
    "sin": (IMAGE, lambda m, x: m.made_sin(x), {"torch": lambda m, x: torch.sin(x), "x": lambda m, x: x.sin()}),
    "cos": (IMAGE, lambda m, x: m.made_cos(x), {"torch": lambda m, x: torch.cos(x), "x": lambda m, x: x.cos()}),
    "sign": (IMAGE, lambda m, x: m.made_sign(x), {"torch": lambda m, x: torch.sign(x), "x": lambda m, x: x.sign()}),
    "a range without zero": (
        IMAGE,
        lambda m, x: m.made_between(x),
        {"x.clamp": lambda m, x: x.clamp(1, 2), "F.hardtanh": lambda m, x: F.hardtanh(x, 1, 2)},
    ),
}
RESHAPES: dict[str, Expression] = {
    "module": lambda m, x: m.flatten(x),
    "torch.flatten": lambda m, x: torch.flatten(x, 1),
    "torch.flatten(start_dim=)": lambda m, x: torch.flatten(x, start_dim=1),
    "torch.reshape": lambda m, x: torch.reshape(x, (x.size(0), -1)),
    "x.flatten": lambda m, x: x.flatten(1),
    "x.view(size)": lambda m, x: x.view(x.size(0), -1),
    "x.view(shape)": lambda m, x: x.view(x.shape[0], -1),
    "x.view(-1, n)": lambda m, x: x.view(-1, 192),
    "x.reshape": lambda m, x: x.reshape(x.size()[0], x.size(1) * x.size(2) * x.size(3)),
}
MOVED: dict[str, Expression] = {
    "pad of channels": lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    "pad that reflects": lambda m, x: F.pad(x, (1, 2, 0, 1), "reflect"),
    "pad that repeats": lambda m, x: F.pad(x, (1, 1, 0, 2), mode="replicate"),
    "negative pad": lambda m, x: F.pad(x, (-1, -1, -1, -1)),
    "pad and crop": lambda m, x: F.pad(x, (-1, 2)),
    "nearest": lambda m, x: F.interpolate(x, scale_factor=2),
    "nearest exact": lambda m, x: F.interpolate(x, (5, 3), mode="nearest-exact"),
    "x.view_as": lambda m, x: x.view_as(x.flatten(1)),
    "transposed": lambda m, x: x.mT,
    "permuted": lambda m, x: x.permute(0, 2, 3, 1),
    "sliced": lambda m, x: x[:, 1:, ::2],
    "joined": lambda m, x: torch.cat([x, x], 1),
    "repeated": lambda m, x: x.repeat(1, 2, 1, 1),
}


def written(expression: Expression) -> Written:
    """A model over the modules that the expression names, with the same numbers each time."""
    torch.manual_seed(0)
    names = [name for name in MODULES if name in expression.__code__.co_names]
    model = Written(expression, **{name: MODULES[name]() for name in names})
    for module in model.children():
        if "Norm" in type(module).__name__:
            for name, tensor in module.state_dict().items():
                tensor.uniform_(0.5, 2) if name != "num_batches_tracked" else None
    return model


def in_training(model: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)  # for dropout
    return model.train()(x)


def refusal(*expressions: Expression, **members: nn.Module) -> str:
    """What is said of a model that returns all these."""
    model = Written(lambda m, x: [expression(m, x) for expression in expressions], **members)
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "modules", "expression"),
    [
        pytest.param(
            shape,
            modules,
            expression,
            id=f"{name} as {other}",
        )
        for name, (shape, modules, others) in SPELT.items()
        for other, expression in others.items()
    ],
)
def test_every_spelling_gives_the_graph_and_the_bits_of_the_modules(shape, modules, expression):
    gm, model = canonical(written(expression)), written(modules)
    assert_graph(gm, graph_text(canonical(model)))
    x = torch.randn(shape) * 3
    assert_same_numbers(gm, model, x)
    assert torch.equal(in_training(gm, x), in_training(model, x))


@pytest.mark.parametrize("expression", RESHAPES.values(), ids=RESHAPES)
def test_reshapes_stay_as_they_are_and_give_the_same_bits(expression):
    gm, model = canonical(written(expression)), written(lambda m, x: x.flatten(1))
    assert len(graph_text(gm).split(" -> ")) == 3
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_every_operation_that_the_pass_rewrites_is_tested():
    expressions = [each for _, _, others in SPELT.values() for each in others.values()]
    graphs = [trace(written(each)).graph for each in [*expressions, *RESHAPES.values(), *MOVED.values()]]
    tested = {node.target for graph in graphs for node in graph.nodes}
    unseen = {operator.iadd, operator.isub, operator.imul, operator.itruediv}  # torch.fx records `x += y` as x + y
    unseen |= {F.sigmoid, F.tanh, abs}  # and what these call
    assert set(spellings()) - unseen <= tested


@pytest.mark.parametrize("expression", MOVED.values(), ids=MOVED)
def test_movements_give_the_same_bits(expression):
    gm, model = canonical(written(expression)), written(expression)
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_a_weighted_sum_is_written_out_as_a_product_and_a_sum():
    expression = lambda m, x: torch.add(x, m.relu(x), alpha=0.3)  # noqa: E731  # a model's forward
    gm = canonical(written(expression))
    assert_graph(gm, "x -> ReLU -> mul -> add(x, mul) -> output")
    assert gm.meta["is_written_out"]  # torch.add rounds once, a product and a sum round twice: prepare allows for it


def test_rows_of_length_one_with_an_epsilon_of_their_own_keep_their_numbers_or_are_refused():
    expression = lambda m, x: F.normalize(x, dim=-1, eps=10.0)  # noqa: E731  # a model's forward
    try:
        gm = canonical(written(expression))
    except ana_fx.UnsupportedError:
        return
    assert_same_numbers(gm, written(expression), torch.randn(IMAGE))


def test_a_sum_weighted_by_a_power_of_two_gives_the_same_bits():
    expression = lambda m, x: torch.sub(x, m.relu(x), alpha=2)  # noqa: E731  # a model's forward
    gm = canonical(written(expression))
    assert_graph(gm, "x -> ReLU -> mul -> sub(x, mul) -> output")
    assert_same_numbers(gm, written(expression), torch.randn(IMAGE))


def test_identities_are_dropped():
    assert_graph(canonical(nn.Sequential(nn.Identity(), nn.ReLU(), nn.Identity())), "input -> ReLU -> output")


def test_what_nobody_reads_is_dropped():
    def forward(m, x):
        m.conv(x)
        return m.relu(x)

    gm = canonical(Written(forward, conv=nn.Conv2d(3, 3, 1), relu=nn.ReLU()))
    assert_graph(gm, "x -> ReLU -> output")


def test_a_second_run_changes_nothing():
    gm = canonical(written(lambda m, x: F.relu(m.conv2(x)).mean((2, 3))))
    before = graph_text(gm)
    Canonicalize()(gm)
    assert graph_text(gm) == before


def test_a_functional_in_a_submodule_becomes_a_module_beside_its_caller():
    inner = Written(lambda m, x: F.relu(F.conv2d(x, m.conv.weight)), conv=nn.Conv2d(3, 3, 1))
    gm = canonical(Written(lambda m, x: m.block(x), block=inner))
    assert [node.target for node in gm.graph.nodes if node.op == "call_module"] == ["block.conv2d", "block.relu"]


def test_a_functional_reads_the_very_parameter_of_the_model():
    gm = canonical(
        Written(
            lambda m, x: m.conv(x) + F.conv2d(x, m.conv.weight, m.conv.bias, padding=1),
            conv=nn.Conv2d(3, 3, 3, padding=1),
        )
    )
    first, second = (module for module in gm.modules() if isinstance(module, nn.Conv2d))
    assert first.weight is second.weight
    assert first.bias is second.bias


def test_all_unsupported_operations_are_refused_at_once():
    message = refusal(
        lambda m, x: m.act(x),
        lambda m, x: torch.cumsum(x, 1),
        lambda m, x: x / x,
        lambda m, x: x.argmax(1),
        act=nn.GLU(),
    )
    assert message.startswith("4 operation(s) cannot be quantised")
    for key in ("GLU", "cumsum()", "truediv()", "argmax()", "Way out: "):
        assert key in message


def test_an_unsupported_operation_is_named_with_path_and_source_line():
    inner = Written(lambda m, x: torch.cumsum(x, 1))
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        canonical(Written(lambda m, x: m.block(x), block=inner))
    line = inspect.getsourcelines(test_an_unsupported_operation_is_named_with_path_and_source_line)[1] + 1
    assert f"'block', {__file__}:{line}: inner = Written" in str(caught.value)


REFUSED: dict[str, tuple[Expression, dict[str, nn.Module], str]] = {
    "batch norm without statistics": (
        lambda m, x: m.norm(x),
        {"norm": nn.BatchNorm2d(3, track_running_stats=False)},
        "needed track_running_stats=True",
    ),
    "functional batch norm without statistics": (
        lambda m, x: F.batch_norm(x, None, None, training=True),
        {},
        "needed batch norm with running statistics",
    ),
    "reflecting convolution": (
        lambda m, x: m.conv(x),
        {"conv": nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")},
        "padding_mode='reflect', needed 'zeros'",
    ),
    "pad with ones": (lambda m, x: F.pad(x, (1, 1), value=1.0), {}, "needed zeros"),
    "pad module with ones": (lambda m, x: m.pad(x), {"pad": nn.ConstantPad2d(1, 1.0)}, "needed zeros"),
    "indices": (
        lambda m, x: m.pool(x)[0],
        {"pool": nn.MaxPool2d(2, return_indices=True)},
        "needed return_indices=False",
    ),
    "functional indices": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0],
        {},
        "return",
    ),
    "clamp by a tensor": (lambda m, x: x.clamp(x, None), {}, "needed a constant"),
    "division by a tensor": (lambda m, x: x / x, {}, "needed tensors, or a tensor and a finite number after it"),
    "division of a number": (lambda m, x: 1 / x, {}, "needed tensors, or a tensor and a finite number after it"),
    "division by zero": (lambda m, x: x / 0, {}, "needed tensors, or a tensor and a finite number after it"),
    "division that rounds": (lambda m, x: torch.div(x, 2, rounding_mode="floor"), {}, "found rounding_mode"),
    "matrix product with a number": (lambda m, x: operator.matmul(x, 2), {}, "needed tensors"),
    "mean over everything": (lambda m, x: x.mean(), {}, "needed constant axes other than the batch axis 0"),
    "mean over the batch": (lambda m, x: x.mean((0, 1)), {}, "needed constant axes other than the batch axis 0"),
    "sum as another type": (lambda m, x: x.sum(1, dtype=torch.float64), {}, "needed constant axes"),
    "power of a tensor": (lambda m, x: x**x, {}, "needed a constant"),
    "rows of another norm": (lambda m, x: F.normalize(x, 1, -1), {}, "needed p=2 over the last axis"),
    "unit rows of channels": (lambda m, x: F.normalize(x), {}, "needed p=2 over the last axis"),
    "softmax without an axis": (lambda m, x: F.softmax(x), {}, "needed an axis and float32"),
    "softmax as another type": (lambda m, x: x.softmax(1, dtype=torch.float64), {}, "needed an axis and float32"),
    "cast to integers": (lambda m, x: x.to(torch.int32), {}, "found a cast to torch.int32, needed floats"),
    "view as integers": (lambda m, x: x.view(torch.int32), {}, "found a view as another type, needed a shape"),
    "bicubic": (lambda m, x: F.interpolate(x, (4, 4), mode="bicubic"), {}, "found mode 'bicubic', needed 'nearest'"),
    "bicubic module": (
        lambda m, x: m.up(x),
        {"up": nn.Upsample(2, mode="bicubic")},
        "has mode 'bicubic', needed one of",
    ),
    "smoothed": (
        lambda m, x: F.interpolate(x, (4, 4), mode="bilinear", antialias=True),
        {},
        "found antialias=True, needed False",
    ),
    "layer norm with a weight for each of several axes": (
        lambda m, x: m.norm(x),
        {"norm": nn.LayerNorm((8, 8))},
        "has a weight for each of (8, 8) numbers, needed one normalised axis",
    ),
    "instance norm with statistics": (
        lambda m, x: m.norm(x),
        {"norm": nn.InstanceNorm2d(3, track_running_stats=True)},
        "use a BatchNorm",
    ),
    "adaptive indices": (
        lambda m, x: m.pool(x)[0],
        {"pool": nn.AdaptiveMaxPool2d(2, return_indices=True)},
        "needed return_indices=False",
    ),
    "computed slope": (lambda m, x: F.prelu(x, m.act.weight * 2), {"act": nn.PReLU()}, "needed a parameter"),
    "computed weight": (
        lambda m, x: F.conv2d(x, m.conv.weight.flatten(1).view(3, 3, 1, 1)),
        {"conv": nn.Conv2d(3, 3, 1)},
        "needed a parameter of the model",
    ),
}


@pytest.mark.parametrize(("expression", "members", "wanted"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_integer_form_is_refused_for_its_reason(expression, members, wanted):
    assert wanted in refusal(expression, **members)


IN_PLACE: dict[str, Expression] = {
    "module": lambda m, y: m.act(y),
    "x.relu_": lambda m, y: y.relu_(),
    "x.clamp_": lambda m, y: y.clamp_(min=0),
    "x.clip_": lambda m, y: y.clip_(min=0),
    "x.mul_": lambda m, y: y.mul_(2),
    "x.sub_": lambda m, y: y.sub_(1),
    "x.div_": lambda m, y: y.div_(2),
    "x.sigmoid_": lambda m, y: y.sigmoid_(),
    "x.tanh_": lambda m, y: y.tanh_(),
    "F.elu_": lambda m, y: F.elu_(y),
    "F.celu_": lambda m, y: F.celu_(y),
    "F.selu_": lambda m, y: F.selu_(y),
    "F.leaky_relu_": lambda m, y: F.leaky_relu_(y),
    "F.silu(inplace)": lambda m, y: F.silu(y, inplace=True),
    "x.add_": lambda m, y: y.add_(m.conv(y)),
    "F.relu_": lambda m, y: F.relu_(y),
    "torch.relu_": lambda m, y: torch.relu_(y),
    "F.hardtanh_": lambda m, y: F.hardtanh_(y),
    "F.relu(inplace)": lambda m, y: F.relu(y, inplace=True),
    "F.relu6(inplace)": lambda m, y: F.relu6(y, inplace=True),
    "F.hardtanh(inplace)": lambda m, y: F.hardtanh(y, inplace=True),
    "F.dropout(inplace)": lambda m, y: F.dropout(y, inplace=True),
}


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_is_refused_if_the_tensor_is_used_later(expression):
    def forward(m, x):
        y = m.conv(x)
        return expression(m, y) + y

    message = refusal(forward, conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True))
    assert "works in place on a tensor that is used again later" in message


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_is_taken_if_the_tensor_is_not_used_later(expression):
    model = Written(lambda m, x: expression(m, m.conv(x)), conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True))
    assert graph_text(canonical(model)).startswith("x -> Conv2d -> ")


@pytest.mark.parametrize("expression", IN_PLACE.values(), ids=IN_PLACE)
def test_an_operation_in_place_never_changes_numbers_silently(expression):
    def forward(m, x):
        y = m.conv(x)
        flat = y.view(y.size(0), -1)
        return expression(m, y).flatten(1) + flat

    model = Written(forward, conv=nn.Conv2d(3, 3, 1), act=nn.ReLU(inplace=True)).eval()
    with pytest.raises(ana_fx.AnaFxError):
        ana_fx.prepare(model, torch.randn(2, 3, 4, 4))


def test_two_models_inputs_can_be_added():
    assert_graph(canonical(WrittenForTwo(lambda m, x, y: x.add(other=y))), "x -> y -> add(x, y) -> output")


def test_a_parameter_can_be_added():
    model = Written(lambda m, x: x + m.dense.bias, dense=nn.Linear(1, 3))
    gm = canonical(model)
    assert_graph(gm, "x -> add -> output")
    assert_same_numbers(gm, model, torch.randn(4, 3))


def test_what_depends_on_parameters_alone_is_left_as_it_is():
    model = Written(lambda m, x: m.conv(x) + torch.cumsum(m.conv.weight, 0).mean(), conv=nn.Conv2d(3, 3, 1))
    gm = canonical(model)
    assert_graph(gm, "x -> Conv2d -> cumsum -> mean -> add(Conv2d, mean) -> output")
    assert_same_numbers(gm, model, torch.randn(IMAGE))


def test_a_functional_batch_norm_with_its_own_settings_is_not_taken_for_its_module():
    model = Written(
        lambda m, x: F.batch_norm(m.norm(x), m.norm.running_mean, m.norm.running_var),
        norm=nn.BatchNorm2d(3, eps=0.5),
    )
    try:
        gm = canonical(model)
    except ana_fx.UnsupportedError:
        return
    assert_same_numbers(gm, model, torch.randn(IMAGE))


@pytest.mark.parametrize("pad", [(0, 0, 0, 0, 1, 1), (-1, -1, -1, -1), (-1, 2)])
def test_a_pad_of_other_axes_and_a_crop_keep_the_bits(pad):
    channels = 5 if len(pad) == 6 else 3
    model = Written(lambda m, x: m.conv(F.pad(x, pad)), conv=nn.Conv2d(channels, 3, 3))
    assert_same_numbers(canonical(model), model, torch.rand(IMAGE))
    assert_same_numbers(fused(model), model, torch.rand(IMAGE))


def test_a_pad_of_the_batch_is_refused():
    model = Written(lambda m, x: m.conv(F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))), conv=nn.Conv2d(3, 3, 3))
    x = torch.rand(IMAGE)
    with pytest.raises(ana_fx.AnaFxError):
        ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]))


@pytest.mark.parametrize("name", ["chunk", "split", "unbind", "tensor_split"])
def test_parts_that_are_returned_as_a_whole_are_refused(name):
    arguments = () if name == "unbind" else (2,)
    with pytest.raises(ana_fx.UnsupportedError, match=rf"{name}\(\) is returned as a whole, needed its parts"):
        canonical(written(lambda m, x: getattr(x, name)(*arguments)))


def test_arithmetic_may_be_deeper_than_the_stack_of_python():
    gm = trace(Written(lambda m, x: functools.reduce(lambda y, _: y + torch.relu(y), range(1200), x)))
    Canonicalize()(gm)
    assert len([node for node in gm.graph.nodes if node.target is operator.add]) == 1200
