"""The CIFAR-10 example trains on files in the real format, and an interruption changes no bit."""

from pathlib import Path

import pytest
import torch

import ana_fx
from examples import cifar10_vgg
from tests.examples.small_data import write_cifar10

OPTIONS = ["--width", "16", "--epochs", "2", "--batch-size", "16", "--device", "cpu", "--compare", "20"]
STEPS_PER_EPOCH = 4  # 60 training images
NUM_FILES = 4


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six batches of 12 random images as the authors' archive holds them, with their own checksums."""
    torch.set_num_threads(1)  # on so small a network two would wait for each other
    return write_cifar10(tmp_path / "data", monkeypatch)


def run(data: Path, out: Path, *more: str) -> int:
    return cifar10_vgg.main([*OPTIONS, "--data", str(data), "--out", str(out), *more])


def flat(state: object, path: str = "") -> dict[str, object]:
    """The leaves of nested dictionaries and lists, by their path."""
    if isinstance(state, (dict, list)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {name: leaf for key, each in items for name, leaf in flat(each, f"{path}/{key}").items()}
    return {path: state}


def assert_same_checkpoint(first: Path, second: Path):
    one, other = (flat(torch.load(out / "checkpoint.pt")) for out in (first, second))
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        assert torch.equal(leaf, other[name]) if isinstance(leaf, torch.Tensor) else leaf == other[name], name


def test_resumed_training_equals_an_uninterrupted_one(data, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(data, whole) == 0

    step, num_steps = ana_fx.Annealer.step, 0

    def step_or_stop(annealer):
        nonlocal num_steps
        num_steps += 1
        if num_steps == STEPS_PER_EPOCH + 2:  # in the middle of the second epoch
            raise KeyboardInterrupt
        step(annealer)

    monkeypatch.setattr(ana_fx.Annealer, "step", step_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run(data, broken)
    capsys.readouterr()
    assert run(data, broken) == 0

    assert "Going on after epoch 1" in capsys.readouterr().out
    assert_same_checkpoint(whole, broken)
    files = sorted(file.name for file in whole.glob("*.onnx"))
    assert len(files) == NUM_FILES
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in files)


def test_checkpoint_of_other_settings_is_refused_until_told_to_start_over(data, tmp_path):
    assert run(data, tmp_path / "out") == 0
    with pytest.raises(SystemExit, match=r"other settings: lr 0\.001, here 0\.01"):
        run(data, tmp_path / "out", "--lr", "0.01")
    assert run(data, tmp_path / "out", "--lr", "0.01", "--fresh") == 0


def test_missing_data_set_is_explained(tmp_path):
    with pytest.raises(SystemExit, match=r"no complete copy of CIFAR-10.*--download"):
        run(tmp_path / "nothing", tmp_path / "out")
