"""Numbers of the model that are NaN or infinite are refused, by prepare and by convert."""

from __future__ import annotations

import copy

import pytest
import torch

import ana_fx
from tests.models import Chain
from tests.programs import trained


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_not_finite_are_all_listed(number):
    qat = copy.deepcopy(trained(Chain))
    qat.get_submodule("hidden").weight.data[0, 0] = number
    qat.get_submodule("head").bias.data[:2] = number
    qat.get_submodule("features.0").norm.running_var[1] = number
    with pytest.raises(ana_fx.UnsupportedError) as caught:
        ana_fx.convert(qat)
    for key in (
        "3 tensor(s) are not finite",
        "'hidden'",
        "weight holds 1 NaN or infinite of 192 numbers",
        "bias holds 2 NaN or infinite of 10 numbers",
        "norm.running_var holds 1",
        "Way out: ",
    ):
        assert key in str(caught.value)


def test_a_model_with_nan_weights_is_refused_by_prepare_already():
    model = Chain()
    model.hidden.weight.data[3] = torch.nan
    with pytest.raises(
        ana_fx.UnsupportedError, match=r"(?s)1 tensor.*'hidden'.*weight holds 12 NaN or infinite of 192"
    ):
        ana_fx.prepare(model)
