"""The bound on two float32 evaluations of a layer, against evaluations that differ in their order."""

import numpy as np
import torch
from torch import nn

import ana_fx
from ana_fx.graph import calls_to, module_of
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.targets.float_tolerance import are_apart, float_tolerance, rounding_of_two


def test_sums_in_another_order_are_within_the_tolerance():
    x = torch.randn(64, 512)
    precision = ana_fx.Precision("int8", output="float")
    program = ana_fx.convert(ana_fx.prepare(nn.Linear(512, 8), x, precision=precision, calibration=[x]))
    (layer,) = (module_of(node) for node in calls_to(program, OperatorMap))
    assert isinstance(layer, OperatorMap)
    order = torch.randperm(512)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    other = nn.functional.linear(x[:, order], layer.weight[:, order], layer.bias)
    distance, tolerance = (other.double() - exact).abs(), float_tolerance(layer, [x])
    assert bool((distance <= tolerance).all())
    assert bool((distance > 0).any())


def test_a_sum_of_more_terms_may_be_further_off():
    assert rounding_of_two(1) < rounding_of_two(2) < rounding_of_two(1000)


def test_nan_is_apart_from_everything():
    have = np.array([1.0, 1.5, np.nan], np.float32)
    assert are_apart(have, np.ones(3, np.float32), 0.25).tolist() == [False, True, True]
