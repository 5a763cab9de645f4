"""(11) to (18): what each says of schedules that keep and break it."""

import pytest

from ana_fx import LayerSchedule, NoiseType, Schedule
from ana_fx.study.conditions import Verdict
from ana_fx.study.theory import check_hypotheses
from tests.study.test_theory import backwards, chain, dynamic

NUMBERS = list(range(11, 19))


def verdicts(schedule, length=3):
    report = check_hypotheses(chain(schedule, length))
    return {each.number: each.verdict for each in report.conditions}


def failing(schedule):
    return [number for number, verdict in verdicts(schedule).items() if verdict is Verdict.FAILS]


@pytest.mark.parametrize("noise", NoiseType)
@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped", "same_end"])
def test_a_dynamic_mean_keeps_all_eight_by_the_letter(noise, interval):
    found = verdicts(dynamic(noise, interval=interval))
    assert list(found) == NUMBERS
    assert failing(dynamic(noise, interval=interval)) == []


@pytest.mark.parametrize("noise", NoiseType)
def test_a_static_mean_fails_12_and_17_alone(noise):
    assert failing(Schedule(noise)) == [12, 17]
    twelve = check_hypotheses(chain(Schedule(noise))).condition(12)
    assert twelve.reason.startswith("for s = 0 alone, α = 0")
    assert twelve.reason.endswith("(all 3 layer maps)")


def test_a_static_variance_fails_wherever_the_width_counts():
    assert failing(Schedule(variance="static")) == [12, 15, 16, 17]
    assert "β stays" in check_hypotheses(chain(Schedule(variance="static"))).condition(15).reason


@pytest.mark.parametrize("noise", NoiseType)
def test_the_reverse_order_fails_18_at_every_edge(noise):
    assert failing(backwards(noise)) == [18]
    edges = check_hypotheses(chain(backwards(noise))).condition(18).failures
    assert [edge.partition(":")[0] for edge in edges] == ["0 -> 1", "1 -> 2"]


@pytest.mark.parametrize("noise", NoiseType)
def test_strict_growth_holds_for_unbounded_noise_and_weakly_for_compact_noise(noise):
    thirteen = check_hypotheses(chain(dynamic(noise))).condition(13)
    is_compact = noise in (NoiseType.UNIFORM, NoiseType.TRIANGULAR)
    assert thirteen.verdict is (Verdict.WEAKER if is_compact else Verdict.HOLDS)
    assert thirteen.holds
    assert (f"under {noise.value} noise only where 0 < σ_λ < 1" in thirteen.reason) == is_compact


def test_a_line_counts_the_places_that_it_does_not_name():
    power = {depth: LayerSchedule(mean_power=3.0) for depth in range(3)}
    seventeen = check_hypotheses(chain(dynamic("normal", depth_overrides=power), 4)).condition(17)
    assert str(seventeen) == "(17) fails  (1 − σ_λ(0)) / r_ℓ -> 0: −α / β = 1.96·λ^1 -> 0 (0, 1 and 1 more)"


def test_a_line_names_edges():
    text = str(check_hypotheses(chain(backwards("normal"), 3)).condition(18))
    assert text.startswith("(18) fails  r_u / σ_v⁻¹(1 − ε·r_v) -> 0 for every edge u -> v: ")
    assert text.endswith("ends at 0.75, its reader at 0.5 (0 -> 1, 1 -> 2)")
