"""Batch norms that were never trained compute with the statistics of their batch, and keep nothing of it."""

import copy

import torch
from torch import nn

from ana_fx.layers.batch_statistics import batch_statistics

X = torch.randn(16, 3, 5, 5) * 7 + 2


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())


def test_norms_that_were_never_trained_compute_as_in_training():
    model = network().eval()
    with batch_statistics(model), torch.no_grad():
        found = model(X)
    wanted = copy.deepcopy(model)
    wanted[1].train()
    assert torch.equal(found, wanted(X))


def test_nothing_of_the_model_changes():
    model = network().eval()
    before, buffers = copy.deepcopy(model.state_dict()), list(model.buffers())
    random_state = torch.get_rng_state()
    for _ in range(2):
        with batch_statistics(model):
            model(X)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(model.state_dict()) == list(before)
    assert all(now is then for now, then in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_statistics_come_back_after_an_error():
    model = network()
    try:
        with batch_statistics(model):
            raise RuntimeError
    except RuntimeError:
        assert torch.equal(model[1].running_var, torch.ones(4))


def test_trained_norms_are_left_as_they_are():
    model = network().train()
    model(X)
    model.eval()
    wanted = model(X)
    with batch_statistics(model):
        assert torch.equal(model(X), wanted)


def test_statistics_that_were_loaded_count_as_trained():
    """States of old versions of torch know no `num_batches_tracked`."""
    model = network().eval()
    model[1].running_mean.fill_(0.5)
    wanted = model(X)
    with batch_statistics(model):
        assert torch.equal(model(X), wanted)
