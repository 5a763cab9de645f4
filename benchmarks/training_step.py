"""The training step of a prepared model over that of the float model, in eager mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import ana_fx
from benchmarks.timing import interleaved, training_step_of
from examples.networks import DSCNN, VGG8

__all__ = ["main"]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG8/4, 32 images": (lambda: VGG8(width_divisor=4), (32, 3, 32, 32)),
    "DS-CNN, 32 clips": (DSCNN, (32, 1, 49, 10)),
}
PRECISIONS = ("ternary", "int2", "int4", "int8")


def main(console: Console, num_rounds: int = 15) -> None:
    """Measure and print the table."""
    table = Table(title=f"training step, prepared over float (median of {num_rounds} rounds, annealing not begun)")
    for column in ("network", "float", *PRECISIONS):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        x = torch.rand(shape)
        candidates = {"float": training_step_of(make().train(), x)}
        for precision in PRECISIONS:
            qat = ana_fx.prepare(make().train(), x, precision=precision)
            ana_fx.Annealer(qat, total_steps=100)
            candidates[precision] = training_step_of(qat, x)
        seconds = interleaved(candidates, num_rounds)
        ratios = [f"×{seconds[precision] / seconds['float']:.2f}" for precision in PRECISIONS]
        table.add_row(name, f"{seconds['float'] * 1e3:.1f} ms", *ratios)
    console.print(table)
