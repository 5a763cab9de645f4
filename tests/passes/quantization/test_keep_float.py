"""Which layer maps stay in floats, and which hand their reals on; more stands in `tests/layers/test_float_map.py`."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx import graph
from ana_fx.passes.quantization import keep_float

OVERRIDES = {"*": "float"}


def counted_calls(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often nodes are asked what they are, to prepare a model that stays float whole."""
    calls: Counter[str] = Counter()

    def counted(where, name):
        ask = getattr(where, name)

        def asked(*arguments):
            calls[name] += 1
            return ask(*arguments)

        return asked

    with monkeypatch.context() as patched:
        for where, name in ((graph, "module_of"), (keep_float, "is_shape"), (keep_float, "is_movement")):
            patched.setattr(where, name, counted(where, name))
        x = torch.rand(2, 4)
        ana_fx.prepare(model, x, precision=ana_fx.Precision("int4", "uint4", overrides=OVERRIDES), calibration=[x])
    return sum(calls.values())


def layers(number: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten()) for _ in range(number))
    )


class Doubled(nn.Module):
    """Sums of what is read with itself, which read integers alone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.head, self.number = nn.Linear(4, 4), number

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.number):
            x = x + x
        return self.head(x)


@pytest.mark.parametrize("make", [layers, Doubled])
def test_each_layer_more_asks_as_many_questions_more(make, monkeypatch):
    counted_calls(make(2), monkeypatch)  # the first model imports code, which asks too
    few, more, most = (counted_calls(make(number), monkeypatch) for number in (5, 10, 20))
    assert 0 < most - more == 2 * (more - few)


def test_sums_of_integers_stay_in_integers_however_many_follow_each_other():
    x = torch.rand(2, 4)
    precision = ana_fx.Precision("int4", "uint4", overrides=OVERRIDES)
    qat = ana_fx.prepare(Doubled(5), x, precision=precision, calibration=[x])
    kept = [name for name, each in qat.named_modules() if getattr(each, "stays_float", False)]
    assert kept == ["head"]
