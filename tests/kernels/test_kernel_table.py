"""Which forms a kernel computes: none on the CPU, and none of an operator that the table does not name."""

from __future__ import annotations

import pytest
import torch

from ana_fx.kernels.integer_form import IntegerForm
from ana_fx.kernels.kernel_table import kernel_of
from ana_fx.numerics.integer_type import IntegerType
from ana_fx.operators.base_operator import Operator
from ana_fx.operators.coefficients import Coefficients
from ana_fx.operators.convolution import Convolution
from ana_fx.operators.identity import Identity
from ana_fx.operators.linear import Linear
from ana_fx.operators.matmul import MatMul
from ana_fx.operators.maximum import Maximum
from ana_fx.operators.normalization import Normalization
from ana_fx.operators.reduce import Reduce
from ana_fx.operators.sum import Sum
from tests.kernel_helpers import DEVICE

IMAGES = Convolution((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
UINT8 = IntegerType.parse("uint8")


def form(device: torch.device | str) -> IntegerForm:
    scale = torch.tensor(0.5, device=device)
    return IntegerForm(Coefficients(scale, torch.ones(1, dtype=torch.float64), torch.ones(4, 3)), None, 1000, scale)


def kernel(operator: Operator, device: torch.device | str) -> object:
    return kernel_of(operator, form(device), [UINT8] * operator.num_inputs, 1)


@pytest.mark.parametrize("operator", [IMAGES, Linear(), MatMul(), Normalization(1e-5), Sum()], ids=lambda op: op.kind)
def test_on_the_cpu_no_form_has_a_kernel(operator):
    assert kernel(operator, "cpu") is None


@pytest.mark.parametrize("operator", [Identity(), Maximum(), Reduce((1,), True, True)], ids=lambda op: op.kind)
def test_an_operator_that_the_table_does_not_name_has_none(operator):
    assert kernel(operator, DEVICE) is None
