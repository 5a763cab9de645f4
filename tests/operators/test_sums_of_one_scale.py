"""Sums of tensors with one scale, as `operators/coefficients.py` gives their coefficients."""

import pytest
import torch

from ana_fx.operators.coefficients import Operands
from ana_fx.operators.sum import Sum


@pytest.mark.parametrize(
    ("factors", "integers", "unit"),
    [
        ((1.0, 1.0), [1, 1], 1.0),
        ((1.0, -1.0), [1, -1], 1.0),
        ((-3.0, 3.0), [-1, 1], 3.0),
        ((1.0, 0.5), [127, 64], 1 / 127),
        ((0.001, -2.0), [1, -127], 2 / 127),
    ],
)
def test_coefficients_follow_from_the_factors_alone(factors, integers, unit):
    operator, scale = Sum(factors, shares_scale=True), torch.tensor(0.3)
    found = operator.coefficients(Operands((scale, scale), (2, 4), output_scale=torch.tensor(0.7)))
    assert found.stored().tolist() == integers
    assert found.unit.tolist() == [unit]
    assert torch.equal(found.x_scale, scale)
    assert operator.largest_coefficient == max(map(abs, integers))
