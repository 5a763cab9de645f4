"""The studies' settings, and scales that say what they are."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import ana_fx
from examples.paper.figures import FIGURES
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


def test_batches_can_be_smaller_too():
    recipe, small = STUDIES["speech_commands"].recipe, Scale.parse("batch=8")
    assert small.recipe(recipe).batch_size == 32
    assert small.describe(recipe).endswith("100% of the given data, batches of 32 for 256")


@pytest.mark.parametrize("name", ["cifar10", "svhn", "speech_commands"])
def test_settings_are_those_of_the_paper(name):
    """Section 4.1, appendices B.1 and B.2."""
    study, is_speech = STUDIES[name], name == "speech_commands"
    assert (study.recipe.epochs, study.recipe.batch_size) == (120 if is_speech else 500, 256)
    assert study.recipe.learning_rate == 1e-3
    assert study.recipe.drop * study.recipe.epochs == pytest.approx(100 if is_speech else 400)
    assert study.num_folds == 5
    assert study.precision.output == "float"
    widths = (str(study.precision.weight), str(study.precision.activation))
    assert widths == (("int4", "uint4") if is_speech else ("ternary", "ternary"))


@pytest.mark.parametrize(("name", "num_layers"), [("cifar10", 8), ("svhn", 8), ("speech_commands", 10)])
def test_every_quantised_depth_is_a_layer_with_weights_and_the_last_layer_is_float(name, num_layers):
    """The paper's L is 8 for VGG8; for DS-CNN it says 9 = 8 + 1, without the first convolution."""
    study, shape = STUDIES[name], (1, 49, 10) if name == "speech_commands" else (3, 32, 32)
    net = study.rearranged(study.network(32, 10))
    qat = ana_fx.prepare(net, torch.rand(2, *shape), precision=study.precision)
    ranges = ana_fx.annealing_ranges(qat)
    weights = [path for path, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert [*ranges] == weights[:-1]
    assert [each.depth for each in ranges.values()] == list(range(num_layers - 1))


def test_the_head_before_the_pool_computes_what_the_head_behind_it_does():
    study, x = STUDIES["speech_commands"], torch.rand(4, 1, 49, 10)
    net = study.network(8, 12).eval()
    before = net(x)
    after = nn.Sequential(study.rearranged(net), study.readout())(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)  # float32 means of 125 in another order


README = Path(__file__).parents[3] / "examples" / "paper" / "README.md"
COMMAND = re.compile(r"^\| \d, .*`(?P<study>\w+) (?P<only>--only [^`]*)` \| (?P<trials>\d+) \|", re.MULTILINE)


@pytest.mark.parametrize("row", [*COMMAND.finditer(README.read_text(encoding="utf-8"))], ids=lambda row: row[0][2])
def test_the_readme_counts_the_trials_of_each_figure(row):
    pairs = [each.split("=") for each in row["only"].removeprefix("--only ").split(" --only ")]
    found = trials(row["study"], only={name: tuple(values.split(",")) for name, values in pairs})
    assert len(found) == int(row["trials"])
    figure = FIGURES[int(row[0][2]) - 1]
    assert row["study"] == figure.study
    assert all(figure.shows(dict(each.schedule)) for each in found if each.schedule)


def test_the_readme_has_a_command_for_each_figure():
    assert [row[0][2] for row in COMMAND.finditer(README.read_text(encoding="utf-8"))] == list("1234567")
