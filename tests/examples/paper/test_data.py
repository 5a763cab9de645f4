"""The studies' data: read in the real formats, limited, parted into folds, and refused where it is not."""

import numpy as np
import pytest
import torch

from examples.paper.data import Examples, Splits, load
from tests.examples.small_data import write_archive, write_cifar10, write_speech_commands, write_svhn


def test_cifar10_is_read_from_its_batches(tmp_path, monkeypatch):
    splits = load("cifar10", write_cifar10(tmp_path / "data", monkeypatch))
    assert splits.train.inputs.shape == (60, 3, 32, 32)
    assert (len(splits.test), splits.num_classes, splits.sample_rate) == (12, 10, None)
    assert splits.train.inputs.dtype == torch.uint8


def test_svhn_is_read_from_matlab_files_with_zero_as_class_zero(tmp_path, monkeypatch):
    splits = load("svhn", write_svhn(tmp_path / "data", monkeypatch))
    assert splits.train.inputs.shape == (20, 3, 32, 32)
    assert splits.test.labels.tolist() == [*range(1, 10), 0] * 2


def test_speech_commands_become_twelve_classes_with_silence_and_unknown_words(tmp_path):
    splits = load("speech_commands", write_speech_commands(tmp_path / "data"))
    assert splits.train.labels.bincount().tolist() == [2] * 10 + [2, 2]  # two speakers; a tenth of 20 clips each
    assert splits.test.labels.bincount().tolist() == [1] * 12
    assert splits.train.inputs.shape == (24, 16000)
    assert splits.noises.shape == (2, 16000)  # whole seconds of 2.5


def test_archive_of_images_becomes_channels_first(tmp_path):
    path = write_archive(tmp_path / "images.npz")
    splits = load("cifar10", path)
    with np.load(path) as archive:
        assert np.array_equal(splits.train.inputs[3].permute(1, 2, 0), archive["x_train"][3])


def test_silent_clips_of_an_archive_are_its_noise(tmp_path):
    clips = np.arange(4 * 8000, dtype=np.int16).reshape(4, 8000)
    arrays = {"x_train": clips, "y_train": [0, 1, 1, 0], "x_test": clips[:1], "y_test": [0]}
    np.savez(tmp_path / "s.npz", **arrays, sample_rate=8000, class_names=["yes", "_silence_"])
    splits = load("speech_commands", tmp_path / "s.npz")
    assert splits.sample_rate == 8000
    assert torch.equal(splits.noises, splits.train.inputs[1:3])


@pytest.mark.parametrize("name", ["cifar10", "svhn", "speech_commands"])
def test_missing_data_is_explained(name, tmp_path):
    with pytest.raises(SystemExit, match=f"no complete copy of {name} in .*nothing.*add --download"):
        load(name, tmp_path / "nothing")


def test_missing_archive_is_explained(tmp_path):
    with pytest.raises(SystemExit, match=r"found no archive .*x\.npz; needed a \.npz file with x_train"):
        load("cifar10", tmp_path / "x.npz")


def splits_of(count):
    examples = Examples(torch.arange(count).to(torch.uint8), torch.arange(count) % 2)
    return Splits(examples, Examples(torch.zeros(3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)), 2)


def test_folds_part_the_training_set_and_leave_the_test_set_alone():
    splits = splits_of(10)
    held_out = []
    for index in range(3):
        fold = splits.fold(index, 3)
        assert not set(fold.train.inputs.tolist()) & set(fold.test.inputs.tolist())
        assert len(fold.train) + len(fold.test) == 10
        held_out += fold.test.inputs.tolist()
    assert sorted(held_out) == list(range(10))


def test_a_share_is_one_of_each_class_of_the_training_set():
    limited = splits_of(10).limited(0.4)
    assert limited.train.labels.bincount().tolist() == [2, 2]
    assert len(limited.test) == 3
