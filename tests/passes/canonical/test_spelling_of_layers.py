"""Layers with parameters, norms, pools, resizing and dropout in every spelling.

This covers passes/canonical/rewrite_layers.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ana_fx
from ana_fx.operators.normalization import UnitNorm
from tests.graphs import Written, assert_same_numbers, canonical
from tests.spelling import (
    IMAGE,
    SEQUENCE,
    VECTOR,
    VOLUME,
    Spelt,
    assert_spelt_alike,
    each_spelling,
    written,
)

MODULES: dict[str, Callable[[], nn.Module]] = {
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
    "drop": lambda: nn.Dropout(0.3),
    "drop1": lambda: nn.Dropout1d(0.3),
    "drop2": lambda: nn.Dropout2d(0.3),
    "drop3": lambda: nn.Dropout3d(0.3),
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
    "unit_norm": lambda: UnitNorm(1e-12),
}
# shape of the input, spelling with modules, other spellings
SPELT: dict[str, Spelt] = {
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
}


@pytest.mark.parametrize(("shape", "modules", "expression"), each_spelling(SPELT))
def test_every_spelling_of_a_layer_gives_the_graph_and_the_bits_of_its_module(shape, modules, expression):
    assert_spelt_alike(written(modules, MODULES), written(expression, MODULES), torch.randn(shape) * 3)


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


def test_rows_of_length_one_with_an_epsilon_of_their_own_keep_their_numbers_or_are_refused():
    expression = lambda m, x: F.normalize(x, dim=-1, eps=10.0)  # noqa: E731  # a model's forward
    try:
        gm = canonical(written(expression, MODULES))
    except ana_fx.UnsupportedError:
        return
    assert_same_numbers(gm, written(expression, MODULES), torch.randn(IMAGE))
