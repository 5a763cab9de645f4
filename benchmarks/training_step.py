"""The training step of a prepared model over that of the float model, before annealing begins."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from torch import nn

import ana_fx
from benchmarks.memory import peak_bytes
from benchmarks.networks import DS_CNN, MOBILENET_V2, RESNET18, VGG8_QUARTER, Network
from benchmarks.timing import NUM_THREADS, interleaved, training_step_of

__all__ = ["main"]

NETWORKS = (VGG8_QUARTER, RESNET18, DS_CNN, MOBILENET_V2)
PRECISIONS = ("int2", "int8")


def main(console: Console, num_rounds: int = 25) -> None:
    """Measure and print a table for each network."""
    for network in NETWORKS:
        table = Table(title=f"{network.name}: a training step, prepared over float")
        for column in ("mode", "float", *PRECISIONS, *(f"memory {precision}" for precision in PRECISIONS)):
            table.add_column(column, justify="left" if column == "mode" else "right")
        for mode in ("eager", "compiled"):
            table.add_row(mode, *_row(network, num_rounds, is_compiled=mode == "compiled"))
        console.print(table)


def _row(network: Network, num_rounds: int, *, is_compiled: bool) -> list[str]:
    """The time of the float network's step, then the ratios of time and of peak memory."""
    x = network.batch()
    models: dict[str, nn.Module] = {"float": network.model()}
    for precision in PRECISIONS:
        qat = models[precision] = ana_fx.prepare(network.model(), x, precision=precision)
        qat(x)  # the first batch sets the scale of the input
        ana_fx.Annealer(qat, total_steps=100)
    steps: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        if is_compiled:
            # As many threads as are timed; said here, since kernels cached for two would be taken for one otherwise.
            model.compile(fullgraph=True, dynamic=False, options={"cpp.threads": NUM_THREADS})
        steps[name] = training_step_of(model, x)
    seconds = interleaved(steps, num_rounds)
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    ratios = [f"×{measured[name] / measured['float']:.2f}" for measured in (seconds, peaks) for name in PRECISIONS]
    return [f"{seconds['float'] * 1e3:.1f} ms", *ratios]
