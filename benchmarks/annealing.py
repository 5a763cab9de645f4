"""What a partition schedule costs over the course of training, relative to a static straight-through estimator and to
the float network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

import ana_fx
from ana_fx.layers.layer_map import LayerMap, Phase
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.networks import RESNET18, RESNET18_LARGE, VGG8_LARGE, VGG8_QUARTER, Network
from benchmarks.results import Row, device_name, print_rows, write_json
from benchmarks.timing import interleaved, training_step_of

__all__ = ["main"]

NETWORKS: Mapping[str, Mapping[str, Network]] = {
    "cpu": {"vgg8": VGG8_QUARTER, "resnet18": RESNET18},
    "cuda": {"vgg8": VGG8_LARGE, "resnet18": RESNET18_LARGE},
}
STATIC = ana_fx.Schedule(variance="static")
PARTITION = ana_fx.Schedule()
TOTAL_STEPS = 1000


def main(
    console: Console,
    num_rounds: int = 15,
    *,
    device: str = "cpu",
    names: Sequence[str] | None = None,
    json_path: Path | None = None,
) -> None:
    """Measure a step in each stage and print the table and the cost of the whole training.

    Args:
        console: Where to print.
        num_rounds: How often each is timed.
        device: "cpu" or "cuda".
        names: Keys of `NETWORKS`; all by default.
        json_path: Where to write the numbers too.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rows: list[Row] = []
    for name in names or NETWORKS[device]:
        network = NETWORKS[device][name]
        found = _measured(network, device, num_rounds if device == "cpu" else min(num_rounds, 4))
        title = (
            f"{network.name}, ternary: a step of a partition schedule over one of a static STE, {device_name(device)}"
        )
        print_rows(console, title, found)
        total, static = found[-1]["step"], found[0]["step"]
        console.print(
            f"a whole training costs ×{total:.2f} of the static one, ×{float(total) / float(static):.2f} of float"
        )
        rows += found
    if json_path is not None:
        write_json(json_path, device, rows)


def _measured(network: Network, device: str, num_rounds: int) -> list[Row]:
    """A row for the float network, one for each stage, and one for the whole training."""
    ranges = ana_fx.annealing_ranges(_prepared(network, PARTITION, device))
    stages = sorted({0.0, *(each.end for each in ranges.values())})
    models: dict[str, nn.Module] = {"static": _prepared(network, STATIC, device), "float": network.model().to(device)}
    models |= {f"{stage:.3f}": _prepared(network, PARTITION, device, stage) for stage in stages}
    x = network.batch().to(device)
    steps = {name: training_step_of(model, x) for name, model in models.items()}
    seconds = interleaved(steps, num_rounds, device)
    saved = {name: saved_bytes(model, x) for name, model in models.items()}
    peaks = {name: peak_bytes(step, device) for name, step in steps.items()}

    def ratio(measured: Mapping[str, float], name: str) -> float:
        return measured[name] / measured["static"]

    rows: list[Row] = []
    for name, model in list(models.items())[1:]:
        phases = [each.phase for each in model.modules() if isinstance(each, LayerMap)]
        rows.append(
            {
                "network": network.name,
                "from": name,
                "learning": str(phases.count(Phase.LEARNING)),
                "step": ratio(seconds, name),
                "saved for backward": ratio(saved, name),
                "peak memory": ratio(peaks, name),
            }
        )
    lengths = [end - start for start, end in zip(stages, [*stages[1:], 1.0], strict=True)]
    total = sum(length * ratio(seconds, f"{stage:.3f}") for length, stage in zip(lengths, stages, strict=True))
    nothing = float("nan")
    whole: Row = {
        "network": network.name,
        "from": "whole training",
        "learning": "",
        "step": total,
        "saved for backward": nothing,
        "peak memory": nothing,
    }
    return [*rows, whole]


def _prepared(network: Network, schedule: ana_fx.Schedule, device: str, progress: float = 0.0) -> torch.fx.GraphModule:
    x = network.batch()
    qat = ana_fx.prepare(network.model(), x[:2], precision="ternary", schedule=schedule).to(device)
    qat(x.to(device))  # the first batch sets the scale of the input
    annealer = ana_fx.Annealer(qat, TOTAL_STEPS)
    while annealer.progress < progress:
        annealer.step()
    return qat
