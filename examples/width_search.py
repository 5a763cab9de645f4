"""Accuracy over size: widths that were searched against one width for all, without training and without labels.

    python -m examples.width_search --data FOLDER --out FOLDER

Two budgets, each what one width for all layers takes: the bytes of the weights, with activations of eight bits; and the
bits of all multiplications, with activations as wide as weights. Each point is `prepare` with calibration, then
`reconstruct`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import ana_fx
from ana_fx.analysis.search_widths import cost_of
from examples.comparison import accuracy_of, evaluate
from examples.trained_networks import TRAINED, Examples, TrainedNetwork

__all__ = ["Point", "main", "picture", "points"]

_WIDTHS = ("int2", "int3", "int4", "int5", "int6", "int7", "int8")
_UNIFORM = ("int2", "int3", "int4", "int5")
_BATCH_SIZE, _NUM_PROBES = 64, 128
_UNITS = {
    "weight_bytes": ("bytes of weights, activations of 8 bits; kB", 1e3),
    "mac_bits": ("weight bits × activation bits of all products; million", 1e6),
}


@dataclass(frozen=True)
class Point:
    """One quantised network.

    Args:
        network: Which.
        budget: What is limited, `weight_bytes` or `mac_bits`.
        uniform: The width that sets the budget.
        is_searched: Whether widths were searched, or all layers have that one.
        cost: What it takes of the budget.
        accuracy: On the test samples.
    """

    network: str
    budget: str
    uniform: str
    is_searched: bool
    cost: float
    accuracy: float


def main() -> None:
    """Measure all points, store and draw them."""
    parser = argparse.ArgumentParser(prog="python -m examples.width_search", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data and the trained networks")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of width_search.json and .png")
    parser.add_argument("--networks", nargs="*", default=["ResNet-20", "ResNet8"], choices=TRAINED)
    parser.add_argument("--samples", type=int, default=256, help="for calibration")
    arguments = parser.parse_args()
    found: list[Point] = []
    for network in arguments.networks:
        for point in points(network, arguments.data, arguments.samples):
            found.append(point)
            Console().print(point)
            stored = json.dumps([asdict(each) for each in found], indent=1)
            (arguments.out / "width_search.json").write_text(stored, encoding="utf-8")
    picture(found).savefig(arguments.out / "width_search.png", dpi=110)


def points(name: str, data: Path, num_samples: int) -> Iterator[Point]:
    """The points of a network, uniform and searched in turn."""
    network = TRAINED[name]
    model, examples = network.load(data), network.examples(data)
    chosen = torch.randperm(len(examples.calibration), generator=torch.Generator().manual_seed(0))[:num_samples]
    samples = examples.calibration[chosen]
    found = ana_fx.sensitivity(model, samples[:_NUM_PROBES].split(_BATCH_SIZE), widths=_WIDTHS)
    cases = [(budget, width) for budget in _UNITS for width in _UNIFORM]
    for budget, width in track(cases, name, console=Console(stderr=True)):
        activation = "uint8" if budget == "weight_bytes" else None
        uniform = ana_fx.Precision(width, activation or f"u{width}")
        limits = asdict(cost_of(found, uniform))
        searched = ana_fx.search_widths(found, **{budget: limits[budget]}, activation=activation)
        for precision, is_searched in ((uniform, False), (searched, True)):
            accuracy = _accuracy(model, network, replace(precision, input=network.input), samples, examples)
            cost = asdict(cost_of(found, precision))[budget]
            yield Point(name, budget, width, is_searched, cost, accuracy)


def _accuracy(
    model: nn.Module, network: TrainedNetwork, precision: ana_fx.Precision, samples: Tensor, examples: Examples
) -> float:
    batches = samples.split(_BATCH_SIZE)
    qat = ana_fx.prepare(model, samples[:2], precision=precision, calibration=batches)
    ana_fx.reconstruct(qat, batches)
    return accuracy_of(evaluate(qat, examples.inputs), examples.labels)


def picture(found: Sequence[Point]) -> Figure:
    """Accuracy over each budget, for each network."""
    networks = list(dict.fromkeys(point.network for point in found))
    figure = Figure(figsize=(9.0, 3.5 * len(networks)), layout="constrained")
    every = figure.subplots(len(networks), len(_UNITS), squeeze=False)
    for row, network in zip(every, networks, strict=True):
        for axes, (budget, (label, divisor)) in zip(row, _UNITS.items(), strict=True):
            for is_searched, said in ((False, "one width for all"), (True, "searched")):
                chosen = [p for p in found if (p.network, p.budget, p.is_searched) == (network, budget, is_searched)]
                costs = [point.cost / divisor for point in chosen]
                axes.plot(costs, [100 * point.accuracy for point in chosen], marker="o", label=said)
            axes.set_title(network)
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
            axes.legend()
    return figure


if __name__ == "__main__":
    main()
