"""Noise that eval mode does not have is refused when a model is converted."""

from __future__ import annotations

import pytest
import torch

import ana_fx
from tests.models import Chain, example
from tests.programs import calibrated


def test_expectation_with_noise_is_refused_until_it_is_annealed():
    schedule = ana_fx.Schedule(strategy="expectation", stop=0.5)
    x = example(Chain)
    qat = calibrated(Chain(), x, schedule=schedule)
    annealer = ana_fx.Annealer(qat, 10)
    for _ in range(4):
        annealer.step()
    with pytest.raises(
        ana_fx.NotAnnealedError, match=r"(?s)quantizer.*head.weight_quantizer: expectation.*progress is 0.5"
    ):
        ana_fx.convert(qat)
    annealer.step()
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))


def test_a_mean_that_is_not_annealed_is_refused_for_every_strategy():
    qat = calibrated(Chain(), example(Chain), schedule=ana_fx.Schedule(mean="dynamic"))
    ana_fx.Annealer(qat, 10)
    with pytest.raises(ana_fx.NotAnnealedError, match=r"7 quantizer.*\n.*noise of mean -0.5"):
        ana_fx.convert(qat)


def test_the_mode_with_a_static_mean_can_be_converted_at_any_time():
    x = example(Chain)
    qat = calibrated(Chain(), x)
    ana_fx.Annealer(qat, 10)
    assert torch.equal(ana_fx.convert(qat)(x), qat(x))
