"""The compositional order: kept, broken by name, or refused; and `describe` says where it is broken."""

import re

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx import LayerSchedule, Schedule
from tests.models import Residual, example

LATE, EARLY = LayerSchedule(0.4, 0.7), LayerSchedule(0.0, 0.3)


def chain(schedule, length=3):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(length)))
    return ana_fx.prepare(model, precision="int4", schedule=schedule)


def refused(model, schedule):
    with pytest.raises(ana_fx.ScheduleError) as refusal:
        ana_fx.prepare(model, schedule=schedule)
    return str(refusal.value).splitlines()


@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped"])
def test_an_ordered_schedule_has_nothing_to_note(interval):
    assert ana_fx.describe(chain(Schedule(interval=interval))).notes == ()


def test_same_end_names_itself_and_is_described_as_what_it_is():
    summary = ana_fx.describe(chain(Schedule(interval="same_end", stop=0.75)))
    assert summary.notes == (
        "The schedule breaks the compositional order at 2 edge(s):",
        "  0 -> 1: its noise begins to decay at 0.5, that of its reader already at 0.25",
        "  1 -> 2: its noise begins to decay at 0.25, that of its reader already at 0",
    )
    assert all(note in str(summary) for note in summary.notes)


def test_overrides_that_break_the_order_are_refused_with_every_edge():
    lines = refused(Residual(), Schedule(interval="same_start", overrides={"stem.0": LATE}, depth="layer_maps"))
    assert lines == [
        "2 edge(s) of the graph where noise does not vanish input first:",
        "  stem.0 -> blocks.0.conv1: its noise is gone at 0.7, that of its reader already at 0.155556",
        "  stem.0 -> blocks.0.add: its noise is gone at 0.7, that of its reader already at 0.311111",
        "Way out: change the overrides, or say Schedule(..., allows_disorder=True)",
    ]


def test_a_late_start_before_an_early_one_is_refused_too():
    early, late = LayerSchedule(0.0, 0.5), LayerSchedule(0.2, 0.5)
    (_, line, _) = refused(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
        Schedule(interval="overlapped", depth_overrides={0: late, 1: early}),
    )
    assert line == "  0 -> 1: its noise begins to decay at 0.2, that of its reader already at 0"


def test_a_partition_whose_ranges_overlap_is_none():
    lines = refused(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), Schedule(depth_overrides={0: LayerSchedule(0.0, 0.5)})
    )
    assert lines[1] == "  0 -> 1: a partition, but 0…0.5 and 0.35…0.7 overlap"


def test_overrides_may_break_the_order_when_asked_to():
    qat = chain(Schedule(depth_overrides={0: LATE, 1: EARLY}, allows_disorder=True), length=2)
    assert [(r.start, r.end) for r in ana_fx.annealing_ranges(qat).values()] == [(0.4, 0.7), (0.0, 0.3)]
    assert ana_fx.describe(qat).notes[1] == "  0 -> 1: its noise is gone at 0.7, that of its reader already at 0.3"


def test_the_name_same_end_does_not_cover_overrides():
    schedule = Schedule(interval="same_end", depth_overrides={0: LayerSchedule(end=1.0)})
    lines = refused(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), schedule)
    assert re.search("1 edge", lines[0])
    assert lines[1].startswith("  0 -> 1: its noise is gone at 1, ")


def test_overrides_that_keep_the_order_need_no_leave():
    own = {1: LayerSchedule(end=0.6), 2: LayerSchedule(start=0.3)}
    qat = chain(Schedule(interval="same_start", depth_overrides=own))
    assert ana_fx.describe(qat).notes == ()


def test_overrides_that_fit_nothing_are_refused_all_at_once():
    schedule = Schedule(
        stop=0.75,
        depth_overrides={5: LayerSchedule(), 1: LayerSchedule(start=0.6)},
        overrides={"nothing*": LayerSchedule()},
    )
    lines = refused(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), schedule)
    assert lines == [
        "3 override(s) do not fit the model:",
        "  depth 5: the depths are 0 to 2",
        "  pattern 'nothing*': it matches no layer map",
        "  1 at depth 1: an annealing range lies in [0, 1], got [0.6, 0.5]",
        "Way out: its layer maps are '0', '1', '2'",
    ]


def test_the_order_of_a_converted_program_is_described_too():
    x = torch.rand(8, 3, 8, 8)
    qat = ana_fx.prepare(Residual(), example(Residual), schedule=Schedule(interval="same_end"), calibration=[x])
    assert ana_fx.describe(ana_fx.convert(qat)).notes == ana_fx.describe(qat).notes != ()


def depths_of(schedule):
    found = ana_fx.annealing_ranges(ana_fx.prepare(Residual(), example(Residual), schedule=schedule))
    return {path: each.depth for path, each in found.items()}


def test_by_weights_a_sum_shares_the_range_of_the_deepest_that_feeds_it():
    depths = depths_of(Schedule(depth="weights"))
    assert depths["blocks.0.add"] == depths["blocks.0.conv2"] == 2
    assert max(depths.values()) == 5  # stem, two convolutions in each of two blocks, head
    assert max(depths_of(Schedule(depth="layer_maps")).values()) == 8
    assert depths == depths_of(Schedule())


@pytest.mark.parametrize("interval", ["partition", "same_start", "overlapped"])
def test_by_weights_too_noise_vanishes_input_first(interval):
    qat = ana_fx.prepare(Residual(), example(Residual), schedule=Schedule(interval=interval, depth="weights"))
    assert qat.meta["order_breaks"] == ()


def test_an_unknown_rule_of_depth_is_refused():
    with pytest.raises(ValueError, match="unknown depth 'pools'; known are 'layer_maps', 'weights'"):
        Schedule(depth="pools")
