"""The CIFAR-10 example trains on files in the real format, and an interruption changes no bit."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

import ana_fx
from examples import cifar10_vgg

OPTIONS = ["--width", "16", "--epochs", "2", "--batch-size", "16", "--device", "cpu", "--compare", "20"]
STEPS_PER_EPOCH = 4  # 60 training images
NUM_FILES = 4


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six batches of 12 random images as the authors' archive holds them, with their own checksums."""
    torch.set_num_threads(1)  # on so small a network two would wait for each other
    folder = tmp_path / "data" / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, object]) -> str:
        content = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def batch(name: str) -> list[str]:
        images = np.random.randint(0, 256, (12, 3 * 32 * 32), np.uint8)
        labels = np.random.randint(0, 10, 12).tolist()
        return [name, write(name, {"batch_label": name, "data": images, "labels": labels, "filenames": []})]

    meta = write("batches.meta", {"label_names": [str(label) for label in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{number}") for number in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return folder.parent


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
