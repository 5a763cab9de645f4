"""The studies' settings, and scales that say what they are."""

import pytest

from examples.paper.studies import STUDIES, Scale
from examples.paper.trials import Trial, grid, label_of, schedule_of


def trials(study="cifar10", **options):
    options = {"num_folds": 5, "seeds": 1, "only": {}, **options}
    return list(grid(STUDIES[study], Scale(), "x", **options))


@pytest.mark.parametrize(("study", "num_schedules"), [("cifar10", 264), ("svhn", 32), ("speech_commands", 32)])
def test_grid_is_the_reduced_design_and_the_float_network_on_every_fold(study, num_schedules):
    found = trials(study)
    assert len(found) == len({str(trial.settings) for trial in found}) == 5 * (num_schedules + 1)


def test_grid_can_be_confined():
    found = trials(num_folds=0, seeds=2, only={"strategy": ("mode",), "variance": ("dynamic",), "noise": ("uniform",)})
    assert len(found) == 2 * (1 + 16)
    assert {dict(trial.schedule).get("strategy") for trial in found} == {None, "mode"}
    assert {trial.fold for trial in found} == {None}


def test_a_trial_is_made_again_from_its_settings():
    for trial in trials("speech_commands")[:3]:
        assert Trial.of(trial.settings) == trial


def test_annealing_ends_when_the_paper_ends_it():
    assert {schedule_of(trial).stop for trial in trials() if trial.schedule} == {0.7}
    assert {schedule_of(trial).stop for trial in trials("speech_commands") if trial.schedule} == {0.75}
    assert schedule_of(trials()[0]) is None


def test_labels_of_a_study_are_unique():
    labels = [label_of(dict(trial.schedule)) for trial in trials(num_folds=0)]
    assert len(labels) == len(set(labels))


def test_scales_are_parsed_and_described():
    recipe = STUDIES["cifar10"].recipe
    assert Scale.parse("full").describe(recipe) == "full scale: full width, 500 epochs, all data"
    small = Scale.parse("width=8,epochs=0.04,data=0.5")
    assert small.describe(recipe) == "reduced scale: 1/8 of the width, 20 of 500 epochs, 50% of the given data"
    assert small.recipe(recipe).epochs == 20


@pytest.mark.parametrize("text", ["", "width", "depth=2", "epochs=2", "width=0", "epochs=x"])
def test_bad_scales_are_refused(text):
    with pytest.raises(ValueError, match="a scale"):
        Scale.parse(text)
