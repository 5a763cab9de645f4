"""Batch statistics taken anew: of the layers that learn, over all batches, without noise; nothing else changes."""

import pytest
import torch
from torch import nn

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers.input_quantizers import InputQuantizer


class TwoNorms(nn.Sequential):
    """Two layers with batch norm and a head."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 3, 3, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 2),
        )


def prepared(schedule="ste"):
    qat = ana_fx.prepare(TwoNorms().train(), torch.rand(4, 1, 6, 6), precision="ternary", schedule=schedule)
    return qat, ana_fx.Annealer(qat, total_steps=10), list(torch.rand(3, 8, 1, 6, 6))


def norms(qat):
    return [layer_map.norm for layer_map in layer_maps(qat).values() if layer_map.norm is not None]


def test_statistics_are_those_of_all_batches_and_of_the_quantized_weights():
    qat, _, batches = prepared()
    for _ in range(5):
        qat(torch.randn(8, 1, 6, 6))  # statistics of something else
    assert ana_fx.reestimate_batch_norms(qat, batches) == 2

    first = layer_maps(qat)["0"]
    weight = first.weight_quantizer(first.weight).detach()
    quantize_input = next(module for module in qat.modules() if isinstance(module, InputQuantizer))
    means = [torch.conv2d(quantize_input(batch), weight).mean((0, 2, 3)) for batch in batches]
    torch.testing.assert_close(norms(qat)[0].running_mean, torch.stack(means).mean(0))  # sums in another order


def test_only_statistics_change():
    qat, _, batches = prepared("best-dynamic")
    qat(batches[0])
    qat.eval()
    before = {name: value.clone() for name, value in qat.state_dict().items()}
    momenta = [norm.momentum for norm in norms(qat)]
    ana_fx.reestimate_batch_norms(qat, batches)
    changed = {
        name.rpartition(".")[2] for name, value in qat.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert not qat.training
    assert [norm.momentum for norm in norms(qat)] == momenta


def test_annealed_layers_keep_their_statistics():
    qat, annealer, batches = prepared("best-dynamic")
    for batch in (*batches, *batches):
        qat(batch)
        annealer.step()
    kept = [norm.running_mean.clone() for norm in norms(qat)]
    assert ana_fx.reestimate_batch_norms(qat, [10 * batch for batch in batches]) == 0
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms(qat), kept, strict=True))


def test_labels_beside_the_inputs_are_ignored():
    first, _, batches = prepared()
    second = ana_fx.prepare(TwoNorms().train(), torch.rand(4, 1, 6, 6), precision="ternary", schedule="ste")
    second.load_state_dict(first.state_dict())
    ana_fx.reestimate_batch_norms(first, batches)
    ana_fx.reestimate_batch_norms(second, [(batch, torch.zeros(8)) for batch in batches])
    assert all(torch.equal(a.running_var, b.running_var) for a, b in zip(norms(first), norms(second), strict=True))


def test_no_batch_is_refused_and_leaves_the_statistics():
    qat, _, batches = prepared()
    qat(batches[0])
    kept = norms(qat)[0].running_mean.clone()
    with pytest.raises(ValueError, match="batches holds no batch"):
        ana_fx.reestimate_batch_norms(qat, [])
    assert torch.equal(norms(qat)[0].running_mean, kept)
