"""What a partition schedule costs over the course of training, relative to a static straight-through estimator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ana_fx
from ana_fx.graph import layer_maps
from benchmarks.timing import interleaved, training_step_of
from examples.networks import VGG8

__all__ = ["main"]

STEPS = 200


def main(console: Console, num_rounds: int = 5) -> None:
    """Measure a step in each stage and print the table and the cost of the whole training."""
    torch.manual_seed(0)
    x = torch.rand(32, 3, 32, 32)
    static = training_step_of(_prepared(ana_fx.Schedule(variance="static"), 0.0), x)
    stages = sorted({0.0, *(each.end for each in ana_fx.annealing_ranges(_prepared(None, 0.0)).values())})
    candidates: dict[str, Callable[[], object]] = {"static": static}
    for stage in stages:
        candidates[f"{stage:.3f}"] = training_step_of(_prepared(None, stage), x)
    seconds = interleaved(candidates, num_rounds)
    table = Table(title="VGG8/4, ternary, 32 images: a step of a partition schedule over one of a static STE")
    for column in ("from", "learning", "step", "saved for backward"):
        table.add_column(column, justify="right")
    static_bytes = saved_bytes(_prepared(ana_fx.Schedule(variance="static"), 0.0), x)
    for stage in stages:
        model = _prepared(None, stage)
        learning = sum(layer_map.phase.value == "learning" for layer_map in layer_maps(model).values())
        ratio = seconds[f"{stage:.3f}"] / seconds["static"]
        table.add_row(f"{stage:.2f}", str(learning), f"×{ratio:.2f}", f"×{saved_bytes(model, x) / static_bytes:.2f}")
    console.print(table)
    ends = [*stages[1:], 1.0]
    total = sum((end - stage) * seconds[f"{stage:.3f}"] for stage, end in zip(stages, ends, strict=True))
    console.print(f"a whole training costs ×{total / seconds['static']:.2f} of the static one")


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the tensors that one training step keeps for its backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(x).square().mean()
    del loss
    return sum(kept.values())


def _prepared(schedule: ana_fx.Schedule | None, progress: float) -> torch.fx.GraphModule:
    qat = ana_fx.prepare(
        VGG8(width_divisor=4).train(), torch.rand(2, 3, 32, 32), precision="ternary", schedule=schedule
    )
    qat(torch.rand(2, 3, 32, 32))  # the first batch sets the scale of the input
    annealer = ana_fx.Annealer(qat, STEPS)
    while annealer.progress < progress:
        annealer.step()
    return qat
