"""Constants, powers and ranges by depth and by pattern.

This covers `schedule/noise_constants.py` too.
"""

import copy
import dataclasses
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.schedule.degrees import DecayInterval, DecayPower
from ana_fx.schedule.noise import Normal, Uniform
from ana_fx.schedule.schedule import AnnealingRange, LayerSchedule, Schedule

EPS = 2.0**-52
HALF = AnnealingRange(1, 0.2, 0.6)  # λ = ½ at 0.4


@pytest.mark.parametrize("power", DecayPower)
@given(
    constant=st.floats(-4, 4), mean_power=st.floats(0.125, 4), std_power=st.floats(0.125, 4), time=st.floats(0.2, 0.6)
)
def test_noise_decays_from_its_constants_with_its_powers(power, constant, mean_power, std_power, time):
    schedule = Schedule(
        power=power, mean="dynamic", mean_constant=constant, mean_power=mean_power, std_power=std_power, half_width=0.25
    )
    p = 2 if power is DecayPower.PROGRESSIVE else 1  # three depths, and this is depth 1
    mean, std = schedule.noise_at(time, HALF, 3)
    remaining = HALF.remaining(time)
    assert mean == pytest.approx(constant * remaining ** (mean_power * p), rel=8 * EPS)
    assert std == pytest.approx(Uniform().std_of(0.25) * remaining ** (std_power * p), rel=8 * EPS)


def test_a_static_mean_is_part_of_the_thresholds_and_not_of_the_noise():
    schedule = Schedule(mean_constant=0.5)
    assert schedule.threshold_shift(HALF) == 0.5
    assert schedule.noise_at(0.3, HALF, 3)[0] == 0.0
    assert Schedule(mean="dynamic", mean_constant=0.5).threshold_shift(HALF) == 0.0


def test_an_unset_mean_is_zero_if_static_and_minus_the_half_width_if_dynamic():
    assert Schedule(half_width=0.3).constants(HALF).mean == 0.0
    assert Schedule(half_width=0.3, mean="dynamic").constants(HALF).mean == -0.3
    own = AnnealingRange(0, 0.0, 0.5, LayerSchedule(half_width=0.1))
    assert Schedule(half_width=0.3, mean="dynamic").constants(own).mean == -0.1


def test_a_pattern_wins_over_a_depth_and_the_last_pattern_over_the_first():
    schedule = Schedule(
        depth_overrides={1: LayerSchedule(start=0.1, half_width=0.1, mean_power=3.0)},
        overrides={"body.*": LayerSchedule(start=0.2, half_width=0.2), "*.last": LayerSchedule(start=0.3)},
    )
    assert schedule.override(0, "stem") is None
    assert schedule.override(1, "stem") == LayerSchedule(start=0.1, half_width=0.1, mean_power=3.0)
    assert schedule.override(1, "body.0") == LayerSchedule(start=0.2, half_width=0.2, mean_power=3.0)
    assert schedule.override(1, "body.last") == LayerSchedule(start=0.3, half_width=0.1, mean_power=3.0)


def test_an_override_leaves_alone_what_it_does_not_name():
    schedule = Schedule(stop=0.875, overrides={"a": LayerSchedule(end=0.5)})
    assert schedule.annealing_range(1, 7, "a") == AnnealingRange(1, 0.125, 0.5, LayerSchedule(end=0.5))
    assert schedule.annealing_range(1, 7, "b") == AnnealingRange(1, 0.125, 0.25)


def test_overrides_reach_the_quantizers_and_the_annealer():
    own = {"1": LayerSchedule(half_width=0.1), "2": LayerSchedule(mean_constant=0.25, half_width=1.0)}
    schedule = Schedule(noise="normal", overrides=own)
    qat = ana_fx.prepare(nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))), schedule=schedule)
    ana_fx.Annealer(qat, 10)
    weights = [layer_map.weight_quantizer for layer_map in layer_maps(qat).values()]
    expected = [torch.tensor(Normal().std_of(width)) for width in (0.5, 0.1, 1.0, 0.5)]
    assert [q.std for q in weights] == expected
    assert [q.num_neighbours for q in weights] == [Normal().num_neighbours(w) for w in (0.5, 0.1, 1.0, 0.5)]
    assert [q.levels().offset for q in weights] == [0.5, 0.5, 0.25, 0.5]


def test_overrides_depend_on_nothing_but_the_model_and_the_arguments():
    schedule = Schedule(depth_overrides={1: LayerSchedule(0.25, 0.5)}, allows_disorder=True)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = (ana_fx.prepare(model, schedule=schedule) for _ in range(2))
    assert ana_fx.annealing_ranges(first) == ana_fx.annealing_ranges(second)
    second.load_state_dict(first.state_dict())


def test_a_schedule_with_overrides_is_a_value():
    schedule = Schedule(depth_overrides={0: LayerSchedule(0.1)}, overrides={"*": LayerSchedule(mean_constant=0.5)})
    assert copy.deepcopy(schedule) == schedule == pickle.loads(pickle.dumps(schedule))
    assert len({schedule, copy.copy(schedule)}) == 1
    changed = dataclasses.replace(schedule, interval="overlapped", allows_disorder=True)
    assert changed.overrides == schedule.overrides
    assert (changed.interval, changed.allows_disorder) == (DecayInterval.OVERLAPPED, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean_constant": 5.0}, r"mean_constant lies in \[-4, 4\]"),
        ({"mean_constant": float("nan")}, "mean_constant lies in"),
        ({"mean_power": 0.0}, r"mean_power lies in \(0, 16\]"),
        ({"std_power": -1.0}, "std_power lies in"),
        ({"half_width": 9.0}, r"half_width lies in \(0, 4\]"),
        ({"start": 1.5}, "start is a fraction of training, got 1.5"),
        ({"end": float("nan")}, "end is a fraction of training"),
    ],
)
def test_constants_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LayerSchedule(**settings)
    if not {"start", "end"} & set(settings):
        with pytest.raises(ValueError, match=message):
            Schedule(**settings)


def test_overrides_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="an override maps int to LayerSchedule, got 'a'"):
        Schedule(depth_overrides={"a": LayerSchedule()})
    with pytest.raises(TypeError, match=r"an override maps str to LayerSchedule, got 'a': 0\.5"):
        Schedule(overrides={"a": 0.5})
    with pytest.raises(ValueError, match="a depth is not negative, got -1"):
        Schedule(depth_overrides={-1: LayerSchedule()})
