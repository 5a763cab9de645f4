"""The programs of quantisation without training, on a network and data of their own."""

import numpy as np
import pytest
import torch
from torch import nn

from examples import post_training, trained_networks, width_search
from examples.post_training import Case, Outcome, run_case, table_of
from examples.trained_networks import Examples, FoldedDSCNN, ResNet8, TrainedNetwork
from examples.width_search import picture


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


def test_a_case_ends_with_a_file_without_differences(monkeypatch, tmp_path):
    monkeypatch.setitem(post_training.TRAINED, "tiny", tiny())
    outcome = run_case(Case("tiny", "int4", 0), tmp_path, 64)
    assert outcome.num_different == 0
    assert 0 <= outcome.reconstructed <= 1


def test_the_table_has_a_row_for_each_network_and_width():
    outcomes = [Outcome(Case("a", p, seed), 0.9, 0.5, 0.8, 0, 1.0) for p in ("int4", "int8") for seed in (0, 1)]
    assert table_of(outcomes).row_count == 2


def test_uniform_and_searched_points_take_turns(monkeypatch, tmp_path):
    monkeypatch.setitem(width_search.TRAINED, "tiny", tiny())
    monkeypatch.setattr(width_search, "_UNIFORM", ("int4",))
    found = list(width_search.points("tiny", tmp_path, 64))
    assert [point.is_searched for point in found] == [False, True, False, True]
    assert all(after.cost <= before.cost for before, after in zip(found[::2], found[1::2], strict=True))
    assert len(picture(found).axes) == 2


@pytest.mark.parametrize(("make", "shape"), [(ResNet8, (3, 32, 32)), (FoldedDSCNN, (1, 49, 10))])
def test_networks_give_logits(make, shape):
    assert make().eval()(torch.rand(2, *shape)).shape[0] == 2


def test_a_file_of_another_network_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", strange=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"other.npz does not fit: missing .* unexpected \['strange'\]"):
        TrainedNetwork(ResNet8, "other.npz", trained_networks._pixels, "auto").load(tmp_path)
