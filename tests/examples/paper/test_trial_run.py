"""A trial learns: the speech network too, whose untrained batch norms calibration once took at their word."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from examples.paper.studies import Scale
from examples.paper.trial_run import run_trial, training_of
from examples.paper.trials import Trial

DEGREES = {"noise": "uniform", "strategy": "mode", "power": "homogeneous", "mean": "static"}
NUM_CLASSES, CLIPS = 4, 24


@pytest.fixture
def tones(tmp_path):
    """An archive of speech whose words are tones."""
    time = np.arange(8000) / 8000
    pitch = 300 * 1.6 ** np.arange(NUM_CLASSES)
    loudness = np.random.default_rng(0).uniform(2000, 9000, (CLIPS, 1, 1))
    clips = loudness * np.sin(2 * np.pi * pitch[:, None] * time) + np.random.default_rng(1).normal(0, 99, (CLIPS, 1, 1))
    x = clips.reshape(-1, len(time)).astype(np.int16)
    y = np.tile(np.arange(NUM_CLASSES), CLIPS)
    path = tmp_path / "tones.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:16], y_test=y[:16], sample_rate=8000)
    return path


def trial(interval="overlapped", variance="static", **scale):
    degrees = {**DEGREES, "interval": interval, "variance": variance}
    return Trial("speech_commands", Scale(width=8, **scale), tuple(degrees.items()), None, 0, 0, "tones")


def test_every_convolution_of_the_untrained_speech_network_gets_a_gradient(tones):
    training = training_of(trial(batch=8), tones, torch.device("cpu"))
    inputs, labels = next(training.batches.epoch(0))
    nn.functional.cross_entropy(training.net(inputs), labels).backward()
    weights = [p for name, p in training.net.named_parameters() if p.ndim == 4 and name.endswith("weight")]
    gradients = [weight.grad for weight in weights]
    assert len(gradients) == 1 + 8 + 1
    assert all(bool((gradient != 0).any()) for gradient in gradients)


def test_a_last_batch_of_one_example_is_not_calibrated_with(tones):
    """77 clips to train on, four at a time."""
    training = training_of(replace(trial(batch=128), fold=1, num_folds=5), tones, torch.device("cpu"))
    assert len(training.batches.examples) % (2 * training.batches.batch_size) == 1


@pytest.mark.parametrize(("interval", "variance"), [("overlapped", "static"), ("partition", "dynamic")])
def test_the_speech_study_learns(interval, variance, tones, tmp_path):
    epochs = run_trial(trial(interval, variance, batch=16, epochs=0.2), tones, tmp_path / "checkpoints")
    assert epochs[-1].accuracy >= 0.75  # of four tones; chance is a quarter
    assert epochs[-1].loss < 0.8 * epochs[0].loss
