"""The stages of an annealed training agree with the noise that the annealer writes."""

import itertools

import pytest
import torch

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.schedule.degrees import DecayInterval
from ana_fx.schedule.schedule import LayerSchedule, Schedule
from tests.models import Chain, example

TOTAL = 37


def annealer(**options):
    qat = ana_fx.prepare(Chain(), example(Chain), precision="int4", schedule=Schedule(**options))
    return qat, ana_fx.Annealer(qat, TOTAL)


@pytest.mark.parametrize("interval", DecayInterval)
def test_annealed_layers_of_a_stage_are_those_without_noise_at_its_steps(interval):
    qat, found = annealer(interval=interval)
    stages = found.stages
    for step in range(TOTAL):
        (stage,) = (each for each in stages if each.first_step <= step < each.last_step)
        without = {path for path, each in layer_maps(qat).items() if not float(each.quantizers()[-1].std)}
        assert without == set(stage.annealed)
        found.step()


def test_partition_anneals_one_depth_after_the_other():
    _, found = annealer()
    paths = list(ana_fx.annealing_ranges(found._qat))
    assert [stage.annealing for stage in found.stages] == [(path,) for path in paths] + [()]
    assert [len(stage.annealed) for stage in found.stages] == list(range(len(paths) + 1))


def test_stages_cover_all_steps_without_a_gap():
    _, found = annealer(interval="overlapped", start=0.2, overrides={"head": LayerSchedule(end=0.9)})
    stages = found.stages
    assert (stages[0].first_step, stages[-1].last_step) == (0, TOTAL)
    assert (stages[0].start, stages[-1].end) == (0.0, 1.0)
    for one, other in itertools.pairwise(stages):
        assert (one.end, one.last_step) == (other.start, other.first_step)


def test_static_schedule_is_one_stage_in_which_all_learn():
    _, found = annealer(variance="static")
    assert found.stages == (ana_fx.Stage(0.0, 1.0, 0, TOTAL, (), ()),)


def test_stages_place_a_drop_of_the_learning_rate():
    qat, found = annealer()
    last_learning = [stage for stage in found.stages if stage.annealing][-1]
    optimizer = torch.optim.SGD(qat.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [last_learning.first_step])
    for _ in range(last_learning.first_step):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.1]
