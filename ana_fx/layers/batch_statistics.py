"""Batch norms that were never trained, and how to run them all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["batch_statistics"]

_STATISTICS = ("running_mean", "running_var")


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """In eval mode, have every batch norm that was never trained normalise with the statistics of its batch.

    Its running statistics, mean 0 and variance 1, say nothing about the data. They are put aside, not changed: torch
    computes with those of the batch where a norm has none. So no buffer, mode or random state is touched.
    """
    norms = [module for module in model.modules() if _was_never_trained(module)]
    kept = [{name: norm._buffers[name] for name in _STATISTICS} for norm in norms]
    try:
        for norm in norms:
            norm._buffers.update(dict.fromkeys(_STATISTICS))
        yield
    finally:
        for norm, statistics in zip(norms, kept, strict=True):
            norm._buffers.update(statistics)


def _was_never_trained(module: nn.Module) -> bool:
    """Whether a module is a batch norm that counts no batch and whose statistics are those it was born with."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or not module.track_running_stats:
        return False
    mean, variance, count = module.running_mean, module.running_var, module.num_batches_tracked
    if mean is None or variance is None:
        return False
    return (count is None or not int(count)) and not bool(mean.any()) and bool((variance == 1).all())
