"""What a partition schedule costs over the course of training, relative to a static straight-through estimator."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layer_map import Phase
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import RESNET18, VGG8_QUARTER, Network
from benchmarks.timing import interleaved, training_step_of

__all__ = ["main"]

STATIC = ana_fx.Schedule(variance="static")
PARTITION = ana_fx.Schedule()
TOTAL_STEPS = 1000


def main(console: Console, num_rounds: int = 15) -> None:
    """Measure a step in each stage and print the table and the cost of the whole training."""
    for network in (VGG8_QUARTER, RESNET18):
        _measure(network, console, num_rounds)


def _measure(network: Network, console: Console, num_rounds: int) -> None:
    stages = sorted({0.0, *(each.end for each in ana_fx.annealing_ranges(_prepared(network, PARTITION)).values())})
    models = {"static": _prepared(network, STATIC)}
    models |= {f"{stage:.3f}": _prepared(network, PARTITION, stage) for stage in stages}
    x = network.batch()
    steps = {name: training_step_of(model, x) for name, model in models.items()}
    seconds = interleaved(steps, num_rounds)
    saved = {name: saved_bytes(model, x) for name, model in models.items()}
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    table = Table(title=f"{network.name}, ternary: a step of a partition schedule over one of a static STE")
    for column in ("from", "learning", "step", "saved for backward", "peak memory"):
        table.add_column(column, justify="right")
    for name, model in list(models.items())[1:]:
        learning = sum(layer_map.phase is Phase.LEARNING for layer_map in layer_maps(model).values())
        ratios = (f"×{measured[name] / measured['static']:.2f}" for measured in (seconds, saved, peaks))
        table.add_row(name, str(learning), *ratios)
    console.print(table)
    lengths = [end - start for start, end in zip(stages, [*stages[1:], 1.0], strict=True)]
    total = sum(length * seconds[name] for length, name in zip(lengths, list(steps)[1:], strict=True))
    console.print(f"a whole training costs ×{total / seconds['static']:.2f} of the static one")


def _prepared(network: Network, schedule: ana_fx.Schedule, progress: float = 0.0) -> torch.fx.GraphModule:
    x = network.batch()
    qat = ana_fx.prepare(network.model(), x, precision="ternary", schedule=schedule)
    qat(x)  # the first batch sets the scale of the input
    annealer = ana_fx.Annealer(qat, TOTAL_STEPS)
    while annealer.progress < progress:
        annealer.step()
    return qat
