"""Batches: repeatable, augmented within bounds, and parted among processes; cepstra of the right shape."""

import pytest
import torch

from examples.paper.data import Examples, Splits
from examples.paper.inputs import Batches, Images, inputs_of


def images(count=10):
    examples = Examples(torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8), torch.arange(count))
    return Splits(examples, examples, count)


def speech(sample_rate=16000, noises=None):
    clips = torch.randint(-9000, 9000, (6, sample_rate), dtype=torch.int16)
    examples = Examples(clips, torch.arange(6))
    return Splits(examples, examples, 6, sample_rate, noises)


def epoch(splits, **options):
    return list(Batches(splits.train, inputs_of(splits), 4, **{"seed": 3, **options}).epoch(2))


def test_an_epoch_is_the_same_every_time_and_others_are_not():
    splits = images()
    first, again = epoch(splits), epoch(splits)
    assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(first, again, strict=True))
    other = epoch(splits, seed=4)
    assert any(not torch.equal(x, u) for (x, _), (u, _) in zip(first, other, strict=True))


def test_augmented_images_are_windows_of_the_padded_ones_or_their_mirror_images():
    stored = torch.randint(1, 256, (20, 1, 8, 8), dtype=torch.uint8)
    augmented = Images().augmented(stored, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(stored.float() / 255, (4,) * 4)
    for image, whole in zip(augmented, padded, strict=True):
        windows = whole.unfold(1, 8, 1).unfold(2, 8, 1)[0].reshape(-1, 8, 8)
        assert any(torch.equal(image[0], window) or torch.equal(image[0], window.flip(1)) for window in windows)


def test_processes_share_every_batch():
    splits = images()
    whole = [labels for _, labels in epoch(splits)]
    parts = [[labels for _, labels in epoch(splits, rank=rank, world_size=2)] for rank in range(2)]
    for labels, one, other in zip(whole, *parts, strict=True):
        assert sorted([*one.tolist(), *other.tolist()]) == sorted(labels.tolist())


def test_measured_batches_hold_all_examples_in_order_and_as_they_are():
    splits = images()
    found = list(Batches(splits.train, inputs_of(splits), 4, 0).measured(splits.test))
    assert torch.equal(torch.cat([x for x, _ in found]), splits.test.inputs.float() / 255)
    assert torch.equal(torch.cat([y for _, y in found]), splits.test.labels)


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_a_second_of_speech_is_49_frames_of_10_standardised_coefficients(sample_rate):
    splits = speech(sample_rate)
    cepstra = inputs_of(splits).plain(splits.train.inputs)
    assert cepstra.shape == (6, 1, 49, 10)
    torch.testing.assert_close(cepstra.mean((0, 1, 2)), torch.zeros(10), rtol=0, atol=1e-4)  # float32 sums of 294
    torch.testing.assert_close(cepstra.std((0, 1, 2)), torch.ones(10), rtol=1e-4, atol=0)


def test_speech_is_shifted_and_mixed_with_noise():
    quiet, noisy = speech(), speech(noises=torch.full((1, 16000), 30000, dtype=torch.int16))
    plain = inputs_of(quiet)
    assert not torch.equal(epoch(quiet)[0][0], epoch(noisy)[0][0])
    shifted = plain._shifted(quiet.train.inputs.float(), torch.Generator().manual_seed(1))
    for clip, whole in zip(shifted, quiet.train.inputs.float(), strict=True):
        padded = torch.nn.functional.pad(whole, (1600, 1600))
        assert any(torch.equal(clip, padded[start : start + 16000]) for start in range(3201))
