"""Weights that are computed from other parameters are refused, all at once, with the way out of each."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import ana_fx

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")

X = torch.rand(4, 6)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 3)))


def prune_twice(layer: nn.Module, name: str) -> None:
    prune.l1_unstructured(layer, name, 0.5)
    prune.random_unstructured(layer, name, 0.2)


KINDS = {
    "weight_norm": (parametrizations.weight_norm, "_WeightNorm", parametrize.remove_parametrizations),
    "spectral_norm": (parametrizations.spectral_norm, "_SpectralNorm", parametrize.remove_parametrizations),
    "orthogonal": (parametrizations.orthogonal, "_Orthogonal", parametrize.remove_parametrizations),
    "old weight_norm": (nn.utils.weight_norm, "weight_norm", nn.utils.remove_weight_norm),
    "old spectral_norm": (nn.utils.spectral_norm, "spectral_norm", nn.utils.remove_spectral_norm),
    "pruned": (lambda m, name: prune.l1_unstructured(m, name, 0.5), "pruning", prune.remove),
    "pruned twice": (prune_twice, "pruning", prune.remove),
}


@pytest.mark.parametrize(("change", "what", "undo"), KINDS.values(), ids=KINDS)
def test_a_computed_weight_is_refused_and_its_way_out_leads_out(change, what, undo):
    model = network()
    change(model[2][0], "weight")
    with pytest.raises(ana_fx.UnsupportedError) as raised:
        ana_fx.prepare(model, X)
    assert f"module '2.0': 'weight' is computed by {what}" in str(raised.value)
    assert undo.__name__ in str(raised.value)
    undo(model[2][0], "weight")
    qat = ana_fx.prepare(model, X, calibration=[X])
    qat(X).sum().backward()
    assert torch.equal(ana_fx.convert(qat)(X), qat.eval()(X))


def test_all_of_them_are_listed_at_once():
    model = network()
    parametrizations.weight_norm(model[0])
    nn.utils.weight_norm(model[2][0])
    prune.random_unstructured(model[2][0], "bias", 0.5)
    with pytest.raises(ana_fx.UnsupportedError) as raised:
        ana_fx.prepare(nn.DataParallel(model), X)
    heading, *lines, way_out = str(raised.value).splitlines()
    assert heading == "3 weight(s) are computed from other parameters:"
    assert [line.split("'")[1:4:2] for line in lines] == [["0", "weight"], ["2.0", "weight"], ["2.0", "bias"]]
    assert all(name in way_out for name in ("remove_parametrizations", "remove_weight_norm", "prune.remove"))


def test_a_tensor_that_was_computed_in_the_constructor_is_refused_too():
    model = network()
    model.mask = model[0].weight * 2
    with pytest.raises(
        ana_fx.UnsupportedError, match=r"(?s)Sequential: 'mask' is computed by MulBackward0 .*nn\.Parameter"
    ):
        ana_fx.prepare(model, X)
