"""Theorem 2: which conditions hold for which schedule, and that the prediction comes true."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx import LayerSchedule, NoiseType, Schedule
from ana_fx.study.convergence import compositional_convergence
from ana_fx.study.theory import check_hypotheses
from tests.models import Residual, Shared, example
from tests.study.test_convergence import unit_chain

UNBOUNDED = ["normal", "logistic"]
REVERSED = {0: LayerSchedule(0.5, 0.75), 1: LayerSchedule(0.25, 0.5), 2: LayerSchedule(0.0, 0.25)}


def dynamic(noise="uniform", **settings):
    return Schedule(noise, mean="dynamic", stop=0.75, **settings)


def backwards(noise, **settings):
    return dynamic(noise, depth_overrides=REVERSED, allows_disorder=True, **settings)


def chain(schedule="best-dynamic", length=3):
    return ana_fx.prepare(nn.Sequential(*(nn.Linear(2, 2) for _ in range(length))), schedule=schedule)


def failing(report):
    return {each.name for each in report.hypotheses if not each.holds}


@pytest.mark.parametrize("noise", NoiseType)
@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped"])
@pytest.mark.parametrize("power", ["homogeneous", "progressive"])
def test_all_conditions_hold_for_a_dynamic_mean_in_order(noise, interval, power):
    report = check_hypotheses(chain(dynamic(noise, interval=interval, power=power)))
    assert failing(report) == set()
    assert report.converges
    assert report.converges_off_thresholds


@pytest.mark.parametrize("noise", NoiseType)
def test_a_static_mean_leaves_thresholds_half_way(noise):
    report = check_hypotheses(chain(Schedule(noise)))
    assert failing(report) == {"mean outweighs"}
    assert "0: α = 0, so at a threshold" in report["mean outweighs"].failures[0]
    assert (report.converges, report.converges_off_thresholds) == (False, True)


def test_a_static_variance_never_vanishes():
    report = check_hypotheses(chain(Schedule(variance="static")))
    assert failing(report) >= {"width vanishes"}
    assert not report.converges_off_thresholds


def test_same_end_converges_but_not_in_step():
    report = check_hypotheses(chain(dynamic(interval="same_end")))
    assert failing(report) == {"in step"}
    assert report["in step"].failures == ("0 -> 1", "1 -> 2")
    assert report.converges


def test_the_reverse_order_fails_at_every_edge():
    report = check_hypotheses(chain(backwards("normal")))
    assert failing(report) == {"input first", "in step"}
    assert report["input first"].failures == ("0 -> 1: 0.75 > 0.5", "1 -> 2: 0.5 > 0.25")


@pytest.mark.parametrize(
    ("noise", "powers", "constant", "reason"),
    [
        ("uniform", (2.0, 2.0), -0.5, None),  # half a step of mean under half a step of width: all mass below 0
        ("triangular", (1.0, 1.0), -0.5, None),
        ("uniform", (2.0, 2.0), -0.49, "needed r = 1.732"),
        ("normal", (2.0, 2.0), -4.0, "stays finite"),
        ("logistic", (3.0, 2.0), -0.5, "-> 0"),
        ("uniform", (3.0, 2.0), -4.0, "-> 0"),
        ("uniform", (1.0, 2.0), 0.5, "the lower level wins"),
    ],
)
def test_the_mean_outweighs_the_width_family_by_family(noise, powers, constant, reason):
    schedule = dynamic(noise, mean_power=powers[0], std_power=powers[1], mean_constant=constant)
    condition = check_hypotheses(chain(schedule))["mean outweighs"]
    assert condition.holds == (reason is None)
    assert reason is None or reason in condition.failures[0]


@pytest.mark.parametrize(
    ("noise", "powers"), [("uniform", (2.0, 2.0)), ("normal", (1.0, 2.0)), ("logistic", (1.0, 1.5))]
)
def test_probability_at_the_threshold_is_what_the_condition_says(noise, powers):
    schedule = dynamic(noise, mean_power=powers[0], std_power=powers[1])
    timing = ana_fx.AnnealingRange(0, 0.0, 0.75)
    missing = []
    for remaining in (0.5, 0.25, 0.125, 2.0**-6):
        mean, std = schedule.noise_at(0.75 * (1 - remaining), timing, 1)
        missing.append(1 - float(schedule.noise.cdf(torch.tensor(-mean / std, dtype=torch.float64))))
    assert missing == sorted(missing, reverse=True)
    assert missing[-1] < 1e-12


def test_shared_weights_are_late_inputs():
    report = check_hypotheses(ana_fx.prepare(Shared(), example(Shared), schedule=dynamic()))
    assert report["input first"].failures == ("its shared weight -> conv: 0.5625 > 0.375",)


def test_rates_are_those_of_the_schedule():
    schedule = dynamic(
        "normal", power="progressive", depth_overrides={1: LayerSchedule(half_width=0.25, std_power=3.0)}
    )
    rates = check_hypotheses(chain(schedule)).rates
    assert [(r.mean, r.mean_power, r.std_power) for r in rates] == [(-0.5, 3, 6), (-0.25, 2, 6), (-0.5, 1, 2)]
    assert [r.std for r in rates] == [schedule.noise.std_of(width) for width in (0.5, 0.25, 0.5)]


def test_another_schedule_can_be_checked_and_the_report_printed():
    report = check_hypotheses(ana_fx.prepare(Residual(), example(Residual)), dynamic("logistic", depth="layer_maps"))
    text = str(report)
    assert text.startswith("Theorem 2 under logistic noise: features converge for every input\n  (11) holds  λ_ℓ -> 0")
    assert "blocks.1.add: α = -0.5·λ^1, β = 0.2475·λ^2, r = λ^1" in text
    assert "α = 0, β" in str(check_hypotheses(chain()))


def test_a_report_has_a_line_for_each_hypothesis_of_the_paper():
    lines = str(check_hypotheses(chain())).splitlines()
    assert [line[:13] for line in lines[1:9]] == [
        "  (11) holds ",
        "  (12) fails ",
        "  (13) weaker",
        "  (14) holds ",
        "  (15) holds ",
        "  (16) holds ",
        "  (17) fails ",
        "  (18) holds ",
    ]
    assert lines[0].endswith("features converge for inputs that meet no threshold")
    assert "σ_λ(0) at ½, so (12) and (17) fail at thresholds, in the paper's own experiments too" in lines[9]
    assert lines[10] == "  0: α = 0, β = 0.2887·λ^2, no r exists"


def test_same_end_with_a_dynamic_mean_is_said_to_satisfy_the_letter():
    report = check_hypotheses(chain(dynamic("normal", interval="same_end")))
    assert all(each.holds for each in report.conditions)
    assert report.powers == (2, 2, 1)
    assert "satisfies the letter" in report.remarks[0]


def test_a_dynamic_mean_in_order_needs_no_remark():
    assert check_hypotheses(chain(dynamic("normal"))).remarks == ()


def test_a_variance_that_stays_is_a_network_that_does_not_converge():
    assert "features do not converge" in str(check_hypotheses(chain(Schedule(variance="static"))))


def test_a_report_names_the_families_of_all_layers():
    mixed = dynamic("uniform", depth_overrides={1: LayerSchedule(noise="logistic")})
    text = str(check_hypotheses(chain(mixed)))
    assert text.startswith("Theorem 2 under uniform and logistic noise: features converge for every input")
    assert "(13) weaker σ_λ is strictly increasing: under uniform noise only" in text


def test_a_number_that_the_theorem_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"\(11\) to \(18\), got 19"):
        check_hypotheses(chain()).condition(19)


# The prediction, on inputs and weights that all stand at thresholds. Times are multiples of 1/64 in training.
TIMES = [step / 64 for step in range(49)]


def errors(schedule):
    qat, x = unit_chain(schedule)
    return [
        dict(zip(TIMES, layer.max_errors, strict=True))
        for layer in compositional_convergence(qat, x, progress=TIMES).layers
    ]


@pytest.mark.parametrize("noise", NoiseType)
@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped"])
def test_input_first_the_error_goes_to_zero_at_every_layer(noise, interval):
    schedule = dynamic(noise, interval=interval)
    for depth, found in enumerate(errors(schedule)):
        end = schedule.annealing_range(depth, 3).end
        before = [error for time, error in found.items() if end - 5 / 64 <= time < end]
        assert max(before[-2:]) <= 2.0**-18  # already before the end, but for float32 sums of three layers
        assert all(later <= earlier + 2.0**-18 for earlier, later in pairwise(before))
        assert all(error == 0.0 for time, error in found.items() if time >= end)


@pytest.mark.parametrize("noise", UNBOUNDED)
def test_in_the_reverse_order_the_error_does_not_vanish_in_step(noise):
    first, second, third = errors(backwards(noise))
    moving = [time for time, error in first.items() if time > 0.5 and error > 2.0**-22]
    assert len(moving) >= 4
    assert first[moving[-1]] < 1e-5 < 1e-2 < first[moving[0]]  # the input's own error does vanish,
    assert {second[time] for time in moving} == {1.0}  # and its reader, annealed before it, is a whole level off
    assert {third[time] for time in moving} == {1.0}


def test_a_static_mean_only_jumps_at_the_end():
    first = errors(Schedule("normal", stop=0.75))[0]
    assert {error > 0.4 for time, error in first.items() if time < 0.25} == {True}
    assert first[0.25] == 0.0
