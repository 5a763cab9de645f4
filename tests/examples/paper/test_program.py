"""The program runs a grid, goes on after a kill without redoing what is finished, draws and ranks."""

import importlib

import pytest
import torch

from examples.paper.engines import Here, Place
from examples.paper.store import Store
from examples.paper.studies import STUDIES, Scale
from examples.paper.training import Training
from examples.paper.trial_run import run_trial
from examples.paper.trials import grid
from tests.examples.small_data import write_archive, write_cifar10, write_speech_commands

typer_testing = pytest.importorskip("typer.testing", reason="the program needs typer")
program = importlib.import_module("examples.paper.__main__")

SCALE = Scale(width=32, epochs=2 / 500)
ONLY = {
    "noise": ("uniform",),
    "strategy": ("mode",),
    "power": ("homogeneous",),
    "mean": ("static",),
    "interval": ("overlapped", "partition"),
}
CONFINED = [option for name, values in ONLY.items() for option in ("--only", f"{name}={','.join(values)}")]
NUM_TRIALS = 1 + 1 + 2  # float, static, two intervals


def invoke(*arguments):
    return typer_testing.CliRunner().invoke(program.app, [str(each) for each in arguments])


def run(data, out, *more):
    scale = ["--scale", "width=32,epochs=0.004", "--folds", "0", "--out", out]
    return invoke("run", "cifar10", "--data", data, *scale, *CONFINED, *more)


def losses(store):
    return {str(trial.settings): [epoch.loss for epoch in trial.epochs] for trial in store.finished()}


def test_a_killed_grid_goes_on_where_it_was(tmp_path, monkeypatch):
    data = write_archive(tmp_path / "images.npz")
    assert run(data, tmp_path / "whole").exit_code == 0

    whole_epoch, num_epochs = Training._run_epoch, 0

    def epoch_or_kill(training, number):
        nonlocal num_epochs
        num_epochs += 1
        if num_epochs == 4:  # the second epoch of the second trial
            raise KeyboardInterrupt
        return whole_epoch(training, number)

    monkeypatch.setattr(Training, "_run_epoch", epoch_or_kill)
    assert run(data, tmp_path / "broken").exit_code != 0
    assert len(Store(tmp_path / "broken" / "results.sqlite").finished()) == 1
    assert run(data, tmp_path / "broken").exit_code == 0

    assert num_epochs == 2 * NUM_TRIALS + 1  # nothing but the epoch that was broken off was done again
    stores = [Store(tmp_path / name / "results.sqlite") for name in ("whole", "broken")]
    assert losses(stores[0]) == losses(stores[1])
    assert len(stores[1].finished()) == NUM_TRIALS
    assert not list((tmp_path / "broken" / "checkpoints").iterdir())


def test_finished_runs_are_drawn_and_ranked(tmp_path, monkeypatch):
    data, out = write_cifar10(tmp_path / "data", monkeypatch), tmp_path / "out"
    assert run(data, out, "--folds", "2").exit_code == 0
    drawn = invoke("figures", "--out", out)
    assert drawn.exit_code == 0, drawn.output
    assert sorted(path.name for path in out.glob("*.png")) == [f"figure{number}.png" for number in (1, 3)]
    exported = invoke("export", tmp_path / "results.jsonl", "--out", out)
    assert exported.stdout.startswith(f"{tmp_path / 'results.jsonl'}: {2 * NUM_TRIALS} trials")
    again = invoke("figures", "3", "--results", tmp_path / "results.jsonl", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["figure3.png"]
    ranked = invoke("ranking", "--out", out)
    assert "reduced scale: 1/32 of the width, 2 of 500 epochs, 100% of the given data" in ranked.stdout
    assert "2-fold cross-validation" in ranked.stdout
    assert ranked.stdout.count(" | 2 | ") == NUM_TRIALS
    assert len([line for line in ranked.stdout.splitlines() if line.startswith("| ") and " ± " in line]) == NUM_TRIALS


def test_a_figure_that_the_paper_does_not_have_is_refused(tmp_path):
    refused = invoke("figures", "8", "--out", tmp_path)
    assert refused.exit_code != 0
    assert "figures 1 to 7" in refused.output


def test_missing_results_are_explained(tmp_path):
    refused = invoke("ranking", "--out", tmp_path)
    assert refused.exit_code != 0
    assert "run a study first" in refused.output


def test_speech_commands_are_trained(tmp_path):
    data, out = write_speech_commands(tmp_path / "data"), tmp_path / "out"
    options = ["--scale", "width=16,epochs=0.009", "--folds", "0", "--only", "noise=uniform", "--only", "strategy=mode"]
    options += ["--only", "interval=partition", "--only", "power=homogeneous"]
    result = invoke("run", "speech_commands", "--data", data, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert len(Store(out / "results.sqlite").finished(study="speech_commands")) == 2


@pytest.mark.slow  # starts two interpreters
def test_workers_give_the_numbers_of_one_process(tmp_path):
    data = write_archive(tmp_path / "images.npz")
    assert run(data, tmp_path / "one").exit_code == 0
    assert run(data, tmp_path / "two", "--workers", "2").exit_code == 0
    one, two = (losses(Store(tmp_path / name / "results.sqlite")) for name in ("one", "two"))
    assert one == two


@pytest.mark.slow  # torchrun starts two interpreters
def test_a_trial_can_run_in_several_processes(tmp_path):
    trials = list(grid(STUDIES["cifar10"], SCALE, "x", num_folds=0, seeds=1, only=ONLY))[:2]
    place = Place(write_archive(tmp_path / "images.npz"), tmp_path / "checkpoints", num_processes=2)
    seen = []
    for _, epochs in Here(place).run(trials, lambda trial, epoch: seen.append(epoch)):
        assert [epoch.number for epoch in epochs] == [0, 1]
    assert len(seen) == 4


def test_a_checkpoint_is_gone_on_from(tmp_path):
    data = write_archive(tmp_path / "images.npz")
    trial = next(iter(grid(STUDIES["cifar10"], SCALE, "x", num_folds=0, seeds=1, only=ONLY)))

    def stop(epoch):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_trial(trial, data, tmp_path, on_epoch=stop)
    assert torch.load(trial.checkpoint_in(tmp_path))["epochs"][0]["number"] == 0
    seen = []
    whole = run_trial(trial, data, tmp_path, on_epoch=seen.append)
    assert ([epoch.number for epoch in whole], [epoch.number for epoch in seen]) == ([0, 1], [1])


def test_cost_counts_all_trials(tmp_path):
    data = write_archive(tmp_path / "images.npz")
    result = invoke("cost", "cifar10", "--data", data, "--scale", "width=32,epochs=0.1", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "1,325 trials" in result.stdout
    assert "reduced scale: 1/32 of the width, 50 of 500 epochs" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "mnist"), "unknown study"),
        (("run", "cifar10", "--scale", "huge"), "a scale is"),
        (("run", "cifar10", "--only", "colour=red"), "one of"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path):
    result = invoke(*arguments, "--data", write_archive(tmp_path / "images.npz"), "--out", tmp_path)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
