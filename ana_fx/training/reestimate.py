"""Batch statistics of the network that is deployed, taken anew before it is judged or shipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import layer_maps
from ana_fx.layers.layer_map import Phase
from ana_fx.layers.quantizers import Quantizer
from ana_fx.prepared.recognize import prepared
from ana_fx.training.batches import tensors_of

__all__ = ["reestimate_batch_norms"]


@torch.no_grad()
def reestimate_batch_norms(qat: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running statistics of the layers that still learn by those over some batches.

    The running statistics of training follow the weights with a delay, and are of noisy layers. Few bits make eval
    mode sensitive to both. Here weights stand still and quantizers have no noise. Layers whose noise is gone keep
    their statistics: what comes after them has learnt with these.

    Args:
        qat: What `prepare` returned; its mode (train or eval) and its noise are as before afterwards.
        batches: Tensors, or tuples that begin with the model's inputs, as for calibration. Training data,
            a few thousand examples.

    Returns:
        How many batch norms have new statistics.

    Raises:
        TypeError: `qat` is no module, or a batch holds no tensors.
        ValueError: It was not prepared, or there is no batch.
    """
    qat = prepared(qat, "reestimate_batch_norms()")
    num_inputs = sum(node.op == "placeholder" for node in qat.graph.nodes)
    was_training = qat.training
    norms = _learning_norms(qat)
    noise = [(q.mean, q.mean.clone(), q.std, q.std.clone()) for q in qat.modules() if isinstance(q, Quantizer)]
    momenta = [norm.momentum for norm in norms]
    inputs = iter(batches)
    first = next(inputs, None)
    if first is None:
        raise ValueError("batches holds no batch; needed at least one")
    try:
        qat.train()
        for mean, _, std, _ in noise:
            mean.zero_()
            std.zero_()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a mean over all batches
        for batch in itertools.chain((first,), inputs):
            qat(*tensors_of(batch, "a batch", num_inputs))
    finally:
        for mean, old_mean, std, old_std in noise:
            mean.copy_(old_mean)
            std.copy_(old_std)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        qat.train(was_training)
    return len(norms)


def _learning_norms(qat: GraphModule) -> list[nn.modules.batchnorm._BatchNorm]:
    norms = []
    for layer_map in layer_maps(qat).values():
        norm = getattr(layer_map, "norm", None)
        is_learning = layer_map.phase in (Phase.LEARNING, Phase.UNRECORDED)
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats and is_learning:
            norms.append(norm)
    return norms
