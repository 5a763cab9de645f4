"""An errand of a third party: a family of noise costs one class, and is trained with like any other."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import ana_fx
from tests.models import INPUT_SHAPES, Chain, Residual, example, make_awkward, train
from tests.test_whole_flow import assert_no_integer_differs

EDGE = (1 / 3 - 2 / math.pi**2) ** -0.5  # of the support of a raised cosine with standard deviation 1


@dataclass(frozen=True)
class RaisedCosine(ana_fx.Noise):
    """On [−s, s]: density (1 + cos(π·z / s)) / 2s."""

    name = "raised cosine"
    half_width = reach = EDGE

    def cdf(self, z: Tensor) -> Tensor:
        t = (z / EDGE).clamp(-1.0, 1.0)
        return 0.5 * (1 + t + torch.sin(math.pi * t) / math.pi)

    def pdf(self, z: Tensor) -> Tensor:
        return (1 + torch.cos(math.pi * (z / EDGE).clamp(-1.0, 1.0))) / (2 * EDGE)

    def sample_like(self, x: Tensor) -> Tensor:
        t = torch.rand_like(x) * 2 - 1  # what the cosine rejects is reflected in the middle of its half
        is_kept = torch.rand_like(x) * 2 < 1 + torch.cos(math.pi * t)
        return torch.where(is_kept, t, t.sign() - t) * EDGE


Z = torch.linspace(-EDGE, EDGE, 100_001, dtype=torch.float64)


def test_the_example_is_a_family_as_the_library_needs_them():
    pdf, dz = RaisedCosine().pdf(Z), float(Z[1] - Z[0])
    # The trapezoidal rule is exact to rounding for 1 and z; for z² it errs by dz² · (z²·p)'' / 12 < dz².
    assert [float((Z**n * pdf).sum() * dz) for n in range(3)] == pytest.approx([1.0, 0.0, 1.0], abs=dz * dz)
    difference = RaisedCosine().cdf(Z).diff() / dz
    torch.testing.assert_close(difference, (pdf[1:] + pdf[:-1]) / 2, rtol=0, atol=1e-8)  # dz² / 12 · |p''| < 5e-10


def test_its_draws_follow_its_distribution_function():
    count = 100_000
    draws = RaisedCosine().sample_like(torch.empty(count)).double().sort().values
    statistic = (RaisedCosine().cdf(draws) - torch.arange(count) / count).abs().max()
    assert float(statistic) < 1 / count + math.sqrt(math.log(2e9) / (2 * count))  # Dvoretzky, Kiefer, Wolfowitz: 1e-9


@pytest.mark.parametrize("strategy", ["mode", "random", "expectation"])
@pytest.mark.parametrize("kind", [Chain, Residual])
def test_no_integer_differs_after_training_with_it(kind, strategy, tmp_path):
    schedule = ana_fx.Schedule(noise=RaisedCosine(), strategy=strategy)
    qat = ana_fx.prepare(make_awkward(kind()), example(kind, signed=True), precision="int4", schedule=schedule)
    train(qat, INPUT_SHAPES[kind], 12, signed=True)
    assert_no_integer_differs(qat.eval(), example(kind, 64, signed=True), tmp_path)


def test_it_is_looked_at_copied_and_resumed_like_any_other():
    schedule = ana_fx.Schedule(noise=RaisedCosine(), mean="dynamic")
    first, second = (
        ana_fx.prepare(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), schedule=schedule) for _ in range(2)
    )
    annealer = ana_fx.Annealer(first, 8)
    for _ in range(3):
        annealer.step()
    second.load_state_dict(first.state_dict())
    ana_fx.Annealer(second, 8)
    assert ana_fx.check_hypotheses(second).converges
    assert "raised cosine" in repr(copy.deepcopy(second))
    assert "raised cosine noise" in ana_fx.plot_schedule(second).get_suptitle()
