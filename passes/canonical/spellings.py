"""How the operations of model code are spelt, and the rewrite of each to its canonical form."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.layers.table_map import Elementwise
from ana_fx.operators.operator_list import function_spellings
from ana_fx.passes.canonical import rewrite_layers, rewrites
from ana_fx.passes.canonical.rewrites import Spelling

__all__ = ["ADVICE", "spellings"]


def _alike(spelling: Spelling, *targets: Any) -> dict[Any, Spelling]:
    return dict.fromkeys(targets, spelling)


def _of_operators() -> dict[Any, Spelling]:
    """Those of the operators of two tensors, as each operator says."""
    pairs = [each for each in function_spellings().values() if each.num_tensors == 2]
    return {
        target: rewrites.pair(each.canonical, takes_numbers=each.takes_numbers)
        for each in pairs
        for target in (each.canonical, *each.others)
    }


_ONE_BIT = (
    "has no gradient, so that nothing before it would learn; leave it out, and let the quantizer of that layer be it: "
    "Precision(activation={0!r}), or overrides={{'path': Precision(activation={0!r})}} for one layer"
)
ADVICE: Mapping[Any, str] = MappingProxyType(
    {
        **dict.fromkeys((torch.sign, torch.sgn, "sign", "sgn"), _ONE_BIT.format("bipolar")),
        **dict.fromkeys((torch.heaviside, "heaviside"), _ONE_BIT.format("uint1")),
    }
)
"""What to write in the place of functions that quantizers are."""


@functools.cache
def spellings() -> Mapping[Any, Spelling]:
    """For each function of torch, and each method by name, the rewrite to its canonical form."""
    return MappingProxyType({**_of_operators(), **_OTHERS})


_OTHERS: Mapping[Any, Spelling] = MappingProxyType(
    {
        **_alike(
            rewrites.pair(operator.truediv), operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_"
        ),
        **_alike(rewrites.module("", lambda: Elementwise(torch.neg)), operator.neg, torch.neg, "neg"),
        **_alike(rewrites.reduction(torch.mean), torch.mean, "mean"),
        **_alike(rewrites.reduction(torch.sum), torch.sum, "sum"),
        **_alike(rewrites.activation("", nn.ReLU), F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"),
        **_alike(rewrites.activation("", nn.ReLU6), F.relu6),
        **_alike(rewrites.module("min_val max_val inplace", rewrites.hardtanh), F.hardtanh, F.hardtanh_),
        **_alike(
            rewrites.module("min max", lambda min=None, max=None: rewrites.clamp(min, max)),  # torch's names
            *(torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"),
        ),
        **_alike(rewrites.activation("negative_slope", nn.LeakyReLU), F.leaky_relu, F.leaky_relu_),
        **_alike(rewrite_layers.prelu, F.prelu, torch.prelu),
        **_alike(rewrites.activation("alpha", nn.ELU), F.elu, F.elu_),
        **_alike(rewrites.activation("alpha", nn.CELU), F.celu, F.celu_),
        **_alike(rewrites.activation("", nn.SELU), F.selu, F.selu_),
        **_alike(rewrites.activation("", nn.SiLU), F.silu),
        **_alike(rewrites.activation("approximate", nn.GELU), F.gelu),
        **_alike(rewrites.activation("", nn.Hardswish), F.hardswish),
        **_alike(rewrites.activation("", nn.Hardsigmoid), F.hardsigmoid),
        **_alike(rewrites.activation("", nn.Sigmoid), F.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"),
        **_alike(rewrites.activation("", nn.Tanh), F.tanh, torch.tanh, "tanh", "tanh_"),
        **_alike(rewrites.activation("beta threshold", nn.Softplus), F.softplus),
        **_alike(rewrites.activation("lambd", nn.Softshrink), F.softshrink),
        **_alike(rewrites.activation("lambd", nn.Hardshrink), F.hardshrink),
        **_alike(rewrites.activation("threshold value", nn.Threshold), F.threshold),
        **_alike(rewrites.activation("", nn.Softsign), F.softsign),
        **_alike(rewrites.activation("", nn.Tanhshrink), F.tanhshrink),
        **_alike(rewrites.activation("", nn.Mish), F.mish),
        **_alike(rewrites.activation("", nn.LogSigmoid), F.logsigmoid),
        **_alike(rewrites.elementwise(torch.abs), abs, operator.abs, torch.abs, "abs"),
        **_alike(rewrites.elementwise(torch.square), torch.square, "square"),
        **_alike(rewrites.elementwise(torch.pow, "exponent"), operator.pow, torch.pow, "pow"),
        **_alike(rewrites.elementwise(torch.exp), torch.exp, "exp"),
        **_alike(rewrites.elementwise(torch.sqrt), torch.sqrt, "sqrt"),
        **_alike(rewrites.elementwise(torch.rsqrt), torch.rsqrt, "rsqrt"),
        **_alike(rewrites.elementwise(torch.log1p), torch.log1p, "log1p"),
        **_alike(rewrites.elementwise(torch.erf), torch.erf, "erf"),
        **_alike(rewrites.elementwise(torch.sin), torch.sin, "sin"),
        **_alike(rewrites.elementwise(torch.cos), torch.cos, "cos"),
        **_alike(rewrites.module("dim _stacklevel dtype", rewrites.softmax), F.softmax),
        **_alike(rewrites.module("dim dtype", rewrites.softmax), torch.softmax, "softmax"),
        **_alike(rewrite_layers.convolution(nn.Conv1d, rewrite_layers.CONVOLUTION_ARGUMENTS), F.conv1d, torch.conv1d),
        **_alike(rewrite_layers.convolution(nn.Conv2d, rewrite_layers.CONVOLUTION_ARGUMENTS), F.conv2d, torch.conv2d),
        **_alike(rewrite_layers.convolution(nn.Conv3d, rewrite_layers.CONVOLUTION_ARGUMENTS), F.conv3d, torch.conv3d),
        **_alike(
            rewrite_layers.convolution(nn.ConvTranspose1d, rewrite_layers.TRANSPOSED_ARGUMENTS),
            F.conv_transpose1d,
            torch.conv_transpose1d,
        ),
        **_alike(
            rewrite_layers.convolution(nn.ConvTranspose2d, rewrite_layers.TRANSPOSED_ARGUMENTS),
            F.conv_transpose2d,
            torch.conv_transpose2d,
        ),
        **_alike(
            rewrite_layers.convolution(nn.ConvTranspose3d, rewrite_layers.TRANSPOSED_ARGUMENTS),
            F.conv_transpose3d,
            torch.conv_transpose3d,
        ),
        F.linear: rewrite_layers.linear,
        F.batch_norm: rewrite_layers.batch_norm,
        F.normalize: rewrites.module("p dim eps out", rewrites.unit_norm),
        F.layer_norm: rewrite_layers.row_norm(nn.LayerNorm, "normalized_shape weight bias eps"),
        F.rms_norm: rewrite_layers.row_norm(nn.RMSNorm, "normalized_shape weight eps"),
        F.group_norm: rewrite_layers.group_norm,
        **_alike(rewrites.max_pool(nn.MaxPool1d), F.max_pool1d, torch.max_pool1d),
        **_alike(rewrites.max_pool(nn.MaxPool2d), F.max_pool2d, torch.max_pool2d),
        **_alike(rewrites.max_pool(nn.MaxPool3d), F.max_pool3d, torch.max_pool3d),
        **_alike(rewrites.average(nn.AvgPool1d), F.avg_pool1d, torch.avg_pool1d),
        F.avg_pool2d: rewrites.average(nn.AvgPool2d),
        F.avg_pool3d: rewrites.average(nn.AvgPool3d),
        **_alike(
            rewrites.module("output_size", nn.AdaptiveAvgPool1d), F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d
        ),
        F.adaptive_avg_pool2d: rewrites.module("output_size", nn.AdaptiveAvgPool2d),
        F.adaptive_avg_pool3d: rewrites.module("output_size", nn.AdaptiveAvgPool3d),
        F.adaptive_max_pool1d: rewrites.module("output_size return_indices", nn.AdaptiveMaxPool1d),
        F.adaptive_max_pool2d: rewrites.module("output_size return_indices", nn.AdaptiveMaxPool2d),
        F.adaptive_max_pool3d: rewrites.module("output_size return_indices", nn.AdaptiveMaxPool3d),
        **_alike(rewrites.dropout(nn.Dropout), F.dropout, torch.dropout),
        F.dropout1d: rewrites.dropout(nn.Dropout1d),
        F.dropout2d: rewrites.dropout(nn.Dropout2d),
        F.dropout3d: rewrites.dropout(nn.Dropout3d),
        F.pad: rewrites.pad,
        F.interpolate: rewrites.interpolate,
        **_alike(rewrites.view, "view", "view_as"),
        **_alike(rewrites.drop, "contiguous", "clone", torch.clone),
        **_alike(rewrites.cast, "float", "to", "type", "type_as"),
        getattr: rewrites.keep,
    }
)
