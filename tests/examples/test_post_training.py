"""The programs of quantisation without training, on a network and data of their own."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from examples import float_vgg, post_training, trained_networks, width_search
from examples.post_training import Case, Outcome, run_case, table_of
from examples.trained_networks import Examples, FoldedDSCNN, ResNet8, TrainedNetwork
from examples.width_search import Point, picture


class Tiny(TrainedNetwork):
    """A network with random weights."""

    def load(self, data):
        torch.manual_seed(0)
        return self.make().eval()


def tiny():
    x = torch.rand(80, 3, 8, 8)
    examples = Examples(x[:64], x[64:], torch.zeros(16, dtype=torch.int64))
    make = lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))  # noqa: E731
    return Tiny(make, "", lambda _: examples, "auto")


@pytest.mark.parametrize("equalizes", [False, True])
def test_a_case_ends_with_a_file_without_differences(equalizes, monkeypatch, tmp_path):
    monkeypatch.setitem(post_training.TRAINED, "tiny", tiny())
    outcome = run_case(Case("tiny", "int4", 0), tmp_path, 64, equalizes=equalizes)
    assert outcome.num_different == 0
    assert 0 <= outcome.reconstructed <= 1


def test_the_table_has_a_row_for_each_network_and_width():
    outcomes = [Outcome(Case("a", p, seed), 0.9, 0.5, 0.8, 0, 1.0) for p in ("int4", "int8") for seed in (0, 1)]
    assert table_of(outcomes).row_count == 2


def test_a_budget_has_its_uniform_point_then_smaller_ones_that_were_searched(monkeypatch, tmp_path):
    monkeypatch.setitem(width_search.TRAINED, "tiny", tiny())
    settings = Namespace(data=tmp_path, widths=["int4"], samples=64, epochs=1)
    found = list(width_search.points("tiny", settings))
    assert [point.is_searched for point in found] == [False, True, True] * 2
    for uniform, equal, smaller in (found[:3], found[3:]):
        assert equal.cost <= uniform.cost
        assert smaller.cost <= 0.85 * uniform.cost
    assert all(0 <= point.trained <= 1 for point in found)
    assert len(picture(found).axes) == 2


def test_networks_that_were_measured_before_stay(monkeypatch, tmp_path):
    monkeypatch.setitem(width_search.TRAINED, "tiny", tiny())
    old = Point("other", "mac_bits", "int4", 1.0, is_searched=False, cost=1.0, accuracy=0.5, trained=None)
    stored = tmp_path / "width_search.json"
    stored.write_text(json.dumps([asdict(old)]), encoding="utf-8")
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path), "--networks", "tiny", "--widths", "int4"]
    monkeypatch.setattr(sys, "argv", ["width_search", *arguments, "--samples", "64"])
    width_search.main()
    assert [each["network"] for each in json.loads(stored.read_text(encoding="utf-8"))] == ["other", *["tiny"] * 6]
    assert (tmp_path / "width_search.png").exists()


def test_a_float_vgg_is_trained_stored_and_loaded(monkeypatch, tmp_path):
    (tmp_path / "cifar10").mkdir()
    images, labels = np.zeros((6, 32, 32, 3), np.uint8), np.arange(6)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "cifar10" / "cifar10_jpeg_10k.npz", **arrays)
    monkeypatch.setattr(sys, "argv", ["float_vgg", "--data", str(tmp_path), "--epochs", "1"])
    float_vgg.main()
    network = trained_networks.TRAINED["VGG8/8"]
    examples = network.examples(tmp_path)
    assert network.load(tmp_path)(examples.inputs).shape == (6, 10)
    assert examples.calibration.shape == (6, 3, 32, 32)


@pytest.mark.parametrize(("make", "shape"), [(ResNet8, (3, 32, 32)), (FoldedDSCNN, (1, 49, 10))])
def test_networks_give_logits(make, shape):
    assert make().eval()(torch.rand(2, *shape)).shape[0] == 2


def test_a_file_of_another_network_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", strange=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"other.npz does not fit: missing .* unexpected \['strange'\]"):
        TrainedNetwork(ResNet8, "other.npz", trained_networks._pixels, "auto").load(tmp_path)
