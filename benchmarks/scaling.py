"""How prepare and convert grow with the graph: chains and residual graphs of 100 to 10,000 nodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ana_fx
from benchmarks.timing import NUM_THREADS

__all__ = ["report"]

SIZES = (100, 1_000, 10_000)  # nodes of the traced graph
ROUNDS = {100: 5, 1_000: 3, 10_000: 1}


class ResidualGraph(nn.Module):
    """Blocks x + relu(conv(x)) / num_blocks, four nodes each; so scaled, no depth makes the sums overflow."""

    def __init__(self, num_nodes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(num_nodes // 4))
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.ones_(parameter)  # what is never above zero has no scale

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4, H, W] to the same."""
        for conv in self.convs:
            x = x + torch.relu(conv(x)) * (1.0 / len(self.convs))
        return x


def chain(num_nodes: int) -> nn.Module:
    """Convolution, batch norm, ReLU, again and again."""
    layers: list[nn.Module] = []
    for _ in range(num_nodes // 3):
        layers += [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers)


GRAPHS: dict[str, Callable[[int], nn.Module]] = {"chain": chain, "residual graph": ResidualGraph}


def report(console: Console) -> None:
    """Print processor seconds, the best of some rounds, and the exponent fitted to each kind of graph."""
    torch.set_num_threads(NUM_THREADS)
    table = Table(title="processor seconds of prepare + convert, int8, and the fitted exponent")
    for column in ("graph", *(f"{size:,} nodes" for size in SIZES), "exponent"):
        table.add_column(column, justify="left" if column == "graph" else "right", no_wrap=True)
    _seconds(chain(SIZES[0]))  # the first call of everything
    for name, build in GRAPHS.items():
        seconds = [min(_seconds(build(size)) for _ in range(ROUNDS[size])) for size in SIZES]
        exponent = np.polyfit([math.log(size) for size in SIZES], [math.log(each) for each in seconds], 1)[0]
        table.add_row(name, *(f"{each:.2f}" for each in seconds), f"{exponent:.2f}")
    console.print(table)


def _seconds(model: nn.Module) -> float:
    torch.manual_seed(0)
    x = torch.rand(2, 4, 4, 4)
    start = time.process_time()
    ana_fx.convert(ana_fx.prepare(model, x, calibration=[x]))
    return time.process_time() - start
