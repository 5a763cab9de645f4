"""The memory of a training step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

__all__ = ["peak_bytes", "saved_bytes"]


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that it holds at a time, beyond those held before; after a run to warm up."""
    run()
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    allocations = sorted((each["ts"], each["args"]["Bytes"]) for each in events if each["name"] == "[memory]")
    allocated = peak = 0
    for _, size in allocations:
        allocated += size
        peak = max(peak, allocated)
    return peak


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the tensors that a training step keeps for its backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(x).square().mean()
    del loss
    return sum(kept.values())
