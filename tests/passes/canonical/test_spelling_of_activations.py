"""Activations, functions of each number, and softmax in every spelling."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.layers.table_map import Elementwise
from tests.spelling import (
    IMAGE,
    Spelt,
    assert_spelt_alike,
    each_spelling,
    written,
)

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "clip": lambda: nn.Hardtanh(-2.0, 3.0),
    "to_six": lambda: nn.Hardtanh(0.0, 6.0),
    "from_minus_one": lambda: nn.Hardtanh(-1.0, torch.inf),
    "soft": lambda: nn.Softmax(1),
    "prelu": lambda: nn.PReLU(3, init=-0.5),
    "made_leaky_relu": lambda: nn.LeakyReLU(0.2),
    "made_elu": lambda: nn.ELU(0.5),
    "made_celu": lambda: nn.CELU(0.5),
    "made_selu": nn.SELU,
    "made_silu": nn.SiLU,
    "made_gelu": nn.GELU,
    "made_tanh_gelu": lambda: nn.GELU("tanh"),
    "made_hardswish": nn.Hardswish,
    "made_hardsigmoid": nn.Hardsigmoid,
    "made_sigmoid": nn.Sigmoid,
    "made_tanh": nn.Tanh,
    "made_softplus": lambda: nn.Softplus(2, 3),
    "made_softshrink": lambda: nn.Softshrink(0.2),
    "made_hardshrink": lambda: nn.Hardshrink(0.2),
    "made_threshold": lambda: nn.Threshold(0.1, 0.2),
    "made_softsign": nn.Softsign,
    "made_tanhshrink": nn.Tanhshrink,
    "made_mish": nn.Mish,
    "made_logsigmoid": nn.LogSigmoid,
    "made_neg": lambda: Elementwise(torch.neg),
    "made_abs": lambda: Elementwise(torch.abs),
    "made_square": lambda: Elementwise(torch.square),
    "made_cube": lambda: Elementwise(torch.pow, exponent=3),
    "made_exp": lambda: Elementwise(torch.exp),
    "made_sqrt": lambda: Elementwise(torch.sqrt),
    "made_rsqrt": lambda: Elementwise(torch.rsqrt),
    "made_log1p": lambda: Elementwise(torch.log1p),
    "made_erf": lambda: Elementwise(torch.erf),
    "made_sin": lambda: Elementwise(torch.sin),
    "made_cos": lambda: Elementwise(torch.cos),
    "made_between": lambda: Elementwise(torch.clamp, min=1.0, max=2.0),
}
# shape of the input, spelling with modules, other spellings
SPELT: dict[str, Spelt] = {
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
    "a range without zero": (
        IMAGE,
        lambda m, x: m.made_between(x),
        {"x.clamp": lambda m, x: x.clamp(1, 2), "F.hardtanh": lambda m, x: F.hardtanh(x, 1, 2)},
    ),
}


@pytest.mark.parametrize(("shape", "modules", "expression"), each_spelling(SPELT))
def test_every_spelling_of_an_activation_gives_the_graph_and_the_bits_of_its_module(shape, modules, expression):
    assert_spelt_alike(written(modules, MODULES), written(expression, MODULES), torch.randn(shape) * 3)
