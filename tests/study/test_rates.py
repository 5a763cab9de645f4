"""Convergence rates: they satisfy (15) to (18) in numbers, a smaller power does not, and some networks have none."""

import math
from itertools import pairwise

import pytest
import torch

import ana_fx
from ana_fx import LayerSchedule, Schedule
from ana_fx.annealing.ordering import annealing_order, layer_map_graph
from ana_fx.schedule.noise import NOISES, Normal, Triangular, Uniform
from ana_fx.study.rates import Rates, convergence_powers, lightness, rates_of
from ana_fx.study.theory import check_hypotheses
from tests.models import Residual, Shared, example
from tests.study.test_theory import REVERSED, backwards, chain, dynamic

LAMBDAS = [2.0**-exponent for exponent in (8, 16, 24, 32)]
EPSILON = 0.5


def quantile(noise, y):
    """F⁻¹(y) for y <= ½, in double precision however small y is; F⁻¹(1 − y) is its negative."""
    if noise == Uniform():
        return math.sqrt(3) * (2 * y - 1)
    if noise == Triangular():
        return math.sqrt(6) * (math.sqrt(2 * y) - 1)
    if noise == Normal():
        return float(torch.special.ndtri(torch.tensor(y, dtype=torch.float64)))
    return math.log(y / (1 - y)) * math.sqrt(3) / math.pi


def noise_at(rates, remaining):
    return rates.mean * remaining**rates.mean_power, rates.std * remaining**rates.std_power


def lower(rates, power, remaining):
    """σ_λ⁻¹(ε·r)."""
    mean, std = noise_at(rates, remaining)
    return mean + std * quantile(rates.noise, EPSILON * remaining**power)


def upper(rates, power, remaining):
    """σ_λ⁻¹(1 − ε·r) = α + β·F⁻¹(1 − ε·r)."""
    mean, std = noise_at(rates, remaining)
    if rates.mean_power < rates.std_power:
        return mean - std * quantile(rates.noise, EPSILON * remaining**power)
    assert -rates.mean == pytest.approx(reach := rates.std * rates.noise.half_width)  # α = −r·β cancels the end
    assert reach == pytest.approx(0.5)
    share = EPSILON * remaining**power  # of it, r − F⁻¹(1 − y) is left
    return -std * (2 * math.sqrt(3) * share if rates.noise == Uniform() else math.sqrt(12 * share))


def found(qat, schedule=None):
    schedule = schedule or qat.meta["schedule"]
    graph = layer_map_graph(qat)
    ranges = annealing_order(graph, schedule)
    rates = rates_of(ranges, schedule)
    return list(zip(rates.values(), convergence_powers(graph, ranges, rates).values(), strict=True))


def vanishes(values):
    sizes = [abs(value) for value in values]
    return sizes == sorted(sizes, reverse=True) and sizes[-1] < 1e-6


COMPACT_EQUAL = [("uniform", (2.0, 2.0)), ("triangular", (1.0, 1.0))]
POWERS = [(noise, (1.0, 2.0)) for noise in NOISES] + [("normal", (2.0, 3.0)), ("logistic", (1.0, 1.5))]


@pytest.mark.parametrize("interval", ["overlapped", "same_end"])
@pytest.mark.parametrize(("noise", "powers"), POWERS + COMPACT_EQUAL)
def test_the_rates_satisfy_15_to_18_in_numbers(noise, powers, interval):
    schedule = dynamic(noise, interval=interval, mean_power=powers[0], std_power=powers[1])
    layers = found(chain(schedule))
    for rates, power in layers:
        assert vanishes(lower(rates, power, remaining) for remaining in LAMBDAS)
        assert vanishes(upper(rates, power, remaining) for remaining in LAMBDAS)
        for remaining in LAMBDAS:
            mean, std = noise_at(rates, remaining)
            below = float(rates.noise.cdf(torch.tensor(mean / std, dtype=torch.float64)))  # 1 − σ_λ(0), by symmetry
            assert below <= 1e-9 * remaining**power
    for (_, power), (reader, own) in pairwise(layers):
        assert vanishes(remaining**power / upper(reader, own, remaining) for remaining in LAMBDAS)


def test_a_rate_one_power_slower_does_not_satisfy_18():
    (_, power), (reader, own), _ = found(chain(dynamic("normal", interval="overlapped")))
    assert not vanishes(remaining ** (power - 1) / upper(reader, own, remaining) for remaining in LAMBDAS)


def test_layer_maps_that_end_before_their_readers_need_no_more_than_the_last():
    for interval in ("partition", "same_start"):
        assert [power for _, power in found(chain(dynamic("normal", interval=interval)))] == [1, 1, 1]


def test_powers_grow_towards_the_input_where_all_end_together():
    layers = found(chain(dynamic("uniform", interval="overlapped", mean_power=2.0, std_power=2.0)))
    assert [power for _, power in layers] == [7, 4, 1]  # 1 + 2 + 4, 1 + 2 + 1, 1
    progressive = found(chain(dynamic("normal", interval="overlapped", power="progressive")))
    assert [power for _, power in progressive] == [3, 2, 1]


def test_there_is_no_rate_behind_an_input_that_ends_later():
    assert [power for _, power in found(chain(backwards("normal")))] == [1, None, None]
    only_first = {0: REVERSED[0], 1: LayerSchedule(0.0, 0.5), 2: LayerSchedule(0.5, 1.0)}
    late = dynamic("normal", depth_overrides=only_first, allows_disorder=True)
    assert [power for _, power in found(chain(late))] == [1, None, None]


def test_there_is_no_rate_under_a_static_mean_or_a_static_variance():
    assert {power for _, power in found(chain(Schedule("normal")))} == {None}
    assert {power for _, power in found(chain(dynamic("normal", variance="static")))} == {None}


def test_layers_may_differ_in_family_and_rule():
    mixed = {0: LayerSchedule(noise="normal"), 2: LayerSchedule(mean="static")}
    layers = found(chain(dynamic("uniform", interval="overlapped", depth_overrides=mixed)))
    assert [rates.noise.name for rates, _ in layers] == ["normal", "uniform", "uniform"]
    assert [power for _, power in layers] == [2, 1, None]


def test_noise_that_stays_never_ends_so_its_reader_has_no_rate_if_that_of_the_reader_vanishes():
    mixed = dynamic("normal", depth_overrides={0: LayerSchedule(variance="static")}, allows_disorder=True)
    assert [power for _, power in found(chain(mixed))] == [None, None, None]
    late = check_hypotheses(chain(mixed)).condition(18)
    assert late.failures == ("0 -> 1: never ends",)


def test_there_is_no_rate_for_weights_that_a_deeper_layer_map_shares():
    qat = ana_fx.prepare(Shared(), example(Shared), schedule=dynamic())
    assert {rates.path: power for rates, power in found(qat)}["conv"] is None


def test_branches_take_the_larger_of_their_readers():
    qat = ana_fx.prepare(Residual(), example(Residual), schedule=dynamic("normal", interval="overlapped"))
    assert {power for _, power in found(qat)} == {1.0, 2.0}


def test_rates_name_a_family_and_say_its_support():
    assert Rates("a", -0.5, 1.0, 0.25, 2.0).noise.is_compact
    assert not Rates("a", -0.5, 1.0, 0.25, 2.0, Normal()).noise.is_compact
    assert lightness(Rates("a", 0.5, 1.0, 0.25, 2.0)) == "α is positive (0.5), so at a threshold the lower level wins"
