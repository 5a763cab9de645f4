"""Overrides of a precision that mean no layer map are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ana_fx
from tests.graphs import Written


def test_overrides_that_match_nothing_are_listed_with_the_layer_maps_there_are():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    precision = ana_fx.Precision("int4", "uint4", overrides={"head*": ana_fx.Precision("int8", "uint8")})
    with pytest.raises(ana_fx.PrecisionError, match=r"1 override.*\n.*'head\*'.*\nWay out: its layer maps are "):
        ana_fx.prepare(model, torch.rand(3, 4), precision=precision)


def test_an_override_may_mean_a_requantizer():
    model = Written(lambda m, x: m.b(torch.cat([m.a(x), x], 1)), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(6, 2, 1))
    precision = ana_fx.Precision("int4", "uint4", overrides={"*requantizer": ana_fx.Precision("int4", "uint8")})
    qat = ana_fx.prepare(model, torch.rand(2, 3, 4, 4), precision=precision)
    (requantizer,) = [path for path in ana_fx.annealing_ranges(qat) if "requantizer" in path]
    assert qat.get_submodule(requantizer).output_quantizer.integer_type.bits == 8
