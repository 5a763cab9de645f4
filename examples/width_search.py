"""Accuracy over size: widths that were searched against one width for all, without labels.

    python -m examples.float_vgg --data FOLDER      # once: the small VGG8 is nobody else's
    python -m examples.width_search --data FOLDER --out FOLDER --epochs 2

Two budgets, each a share of what one width for all layers takes: the bytes of the weights, with activations of eight
bits; and the bits of all multiplications, with activations as wide as weights. Each point is `prepare` with
calibration, then `reconstruct`; near the size of int4 also a short training, in which the float network is the teacher.
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
from torch.fx import GraphModule

import ana_fx
from ana_fx.analysis.search_widths import cost_of
from ana_fx.analysis.sensitivities import Sensitivities
from examples.comparison import accuracy_of, evaluate
from examples.trained_networks import TRAINED, Examples, TrainedNetwork

__all__ = ["Point", "main", "picture", "points"]

_WIDTHS = ("int2", "int3", "int4", "int5", "int6", "int7", "int8")
_SHARES = {"int4": (1.0, 0.85)}  # of what that width takes
_TRAINED = "int4"
_BATCH_SIZE, _NUM_PROBES, _RATE = 64, 128, 1e-4
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
        share: How much of what that takes may be used.
        is_searched: Whether widths were searched, or all layers have that one.
        cost: What it takes of the budget.
        accuracy: On the test samples.
        trained: The same after a short training, if there was one.
    """

    network: str
    budget: str
    uniform: str
    share: float
    is_searched: bool
    cost: float
    accuracy: float
    trained: float | None


def main() -> None:
    """Measure all points, store and draw them; networks that were measured before stay."""
    parser = argparse.ArgumentParser(prog="python -m examples.width_search", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data and the trained networks")
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of width_search.json and .png")
    parser.add_argument("--networks", nargs="*", default=["ResNet-20", "ResNet8", "VGG8/8"], choices=TRAINED)
    parser.add_argument("--widths", nargs="*", default=["int2", "int3", "int4", "int5"], help="whose size is a budget")
    parser.add_argument("--samples", type=int, default=256, help="for calibration")
    parser.add_argument("--epochs", type=int, default=0, help="of training, on the samples calibration may choose from")
    arguments = parser.parse_args()
    stored = arguments.out / "width_search.json"
    found = [Point(**each) for each in json.loads(stored.read_text("utf-8"))] if stored.exists() else []
    found = [point for point in found if point.network not in arguments.networks]
    for network in arguments.networks:
        for point in points(network, arguments):
            found.append(point)
            Console().print(point)
            stored.write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")
    picture(found).savefig(arguments.out / "width_search.png", dpi=110)


def points(name: str, settings: argparse.Namespace) -> Iterator[Point]:
    """The points of a network: for each budget that of one width, then those that were searched."""
    network = TRAINED[name]
    case = _Case(network, network.load(settings.data), network.examples(settings.data), settings.samples)
    found = ana_fx.sensitivity(case.model, case.samples[:_NUM_PROBES].split(_BATCH_SIZE), widths=_WIDTHS)
    sizes = [(budget, width) for budget in _UNITS for width in settings.widths]
    for budget, width in track(sizes, name, console=Console(stderr=True)):
        epochs = settings.epochs if width == _TRAINED else 0
        for share, precision in _precisions(found, budget, width):
            accuracy, trained = case.accuracies(precision, epochs)
            cost = asdict(cost_of(found, precision))[budget]
            yield Point(name, budget, width, share or 1.0, bool(share), cost, accuracy, trained)


def _precisions(found: Sensitivities, budget: str, width: str) -> Iterator[tuple[float | None, ana_fx.Precision]]:
    """One width for all, then for each share of its size what a search finds."""
    activation = "uint8" if budget == "weight_bytes" else None
    uniform = ana_fx.Precision(width, activation or f"u{width}")
    yield None, uniform
    size = asdict(cost_of(found, uniform))[budget]
    for share in _SHARES.get(width, (1.0,)):
        yield share, ana_fx.search_widths(found, **{budget: share * size}, activation=activation)


class _Case:
    """A network and its data.

    Args:
        network: What it is.
        model: The float network.
        examples: Its data.
        num_samples: For calibration.
    """

    def __init__(self, network: TrainedNetwork, model: nn.Module, examples: Examples, num_samples: int) -> None:
        self.network, self.model, self.examples = network, model, examples
        chosen = torch.randperm(len(examples.calibration), generator=torch.Generator().manual_seed(0))[:num_samples]
        self.samples = examples.calibration[chosen]

    def accuracies(self, precision: ana_fx.Precision, epochs: int) -> tuple[float, float | None]:
        """Without training, and after it if there is one."""
        precision = replace(precision, input=self.network.input)
        batches = self.samples.split(_BATCH_SIZE)
        qat = ana_fx.prepare(self.model, self.samples[:2], precision=precision, calibration=batches, schedule="ste")
        ana_fx.reconstruct(qat, batches)
        accuracy = self._accuracy(qat)
        if not epochs:
            return accuracy, None
        _train(qat, ana_fx.Distiller(self.model, weight=1.0), self.examples.calibration, epochs)
        return accuracy, self._accuracy(qat)

    def _accuracy(self, qat: GraphModule) -> float:
        return accuracy_of(evaluate(qat, self.examples.inputs), self.examples.labels)


def _train(qat: GraphModule, distiller: ana_fx.Distiller, inputs: Tensor, epochs: int) -> None:
    """Adam with a rate that falls to zero, and no loss but the teacher's: no labels are read.

    Statistics of batch norms stay those of the float network, which saw more images than these.
    """
    torch.manual_seed(0)
    qat.train()
    for norm in qat.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.eval()
    optimizer = torch.optim.Adam(qat.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(inputs) // _BATCH_SIZE))
    for _ in range(epochs):
        for chosen in torch.randperm(len(inputs)).split(_BATCH_SIZE)[: len(inputs) // _BATCH_SIZE]:
            distiller(qat(inputs[chosen]), inputs[chosen], torch.zeros(())).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()


def picture(found: Sequence[Point]) -> Figure:
    """Accuracy over each budget, for each network."""
    networks = list(dict.fromkeys(point.network for point in found))
    figure = Figure(figsize=(9.0, 3.5 * len(networks)), layout="constrained")
    every = figure.subplots(len(networks), len(_UNITS), squeeze=False)
    for row, network in zip(every, networks, strict=True):
        for axes, (budget, (label, divisor)) in zip(row, _UNITS.items(), strict=True):
            for is_searched, said, color in ((False, "one width for all", "C0"), (True, "searched", "#c4572e")):
                chosen = [p for p in found if (p.network, p.budget, p.is_searched) == (network, budget, is_searched)]
                chosen.sort(key=lambda point: point.cost)
                costs = [point.cost / divisor for point in chosen]
                axes.plot(costs, [100 * point.accuracy for point in chosen], marker="o", color=color, label=said)
                pairs = zip(costs, chosen, strict=True)
                trained = [(cost, 100 * p.trained) for cost, p in pairs if p.trained is not None]
                if trained:
                    axes.plot(*zip(*trained, strict=True), "*", color=color, markersize=11, label=f"{said}, trained")
            axes.set_title(network)
            axes.set_xlabel(label)
            axes.set_ylabel("accuracy, %")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small", framealpha=0.3)
    return figure


if __name__ == "__main__":
    main()
