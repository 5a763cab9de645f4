"""Seconds of prepare, convert and export, and whether they grow linearly with the graph."""

from __future__ import annotations

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import ana_fx
from examples.networks import DSCNN, VGG8

__all__ = ["main"]

DEPTHS = (25, 50, 100, 200)


def main(console: Console) -> None:
    """Measure and print the table and the exponent."""
    table = Table(title="seconds of the pipeline, int4")
    for column in ("network", "prepare", "convert", "export"):
        table.add_column(column, justify="left" if column == "network" else "right")
    models: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "VGG8": (VGG8(), (2, 3, 32, 32)),
        "DS-CNN": (DSCNN(), (2, 1, 49, 10)),
    }
    models |= {f"chain of {depth}": (_chain(depth), (2, 4, 4, 4)) for depth in DEPTHS}
    totals = []
    for name, (model, shape) in models.items():
        seconds = _seconds(model, shape)
        totals.append(sum(seconds))
        table.add_row(name, *(f"{each:.2f}" for each in seconds))
    console.print(table)
    exponent = math.log(totals[-1] / totals[-len(DEPTHS)]) / math.log(DEPTHS[-1] / DEPTHS[0])
    console.print(f"from {DEPTHS[0]} to {DEPTHS[-1]} layers the time grows with exponent {exponent:.2f}")


def _chain(depth: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers)


def _seconds(model: nn.Module, shape: tuple[int, ...]) -> tuple[float, float, float]:
    torch.manual_seed(0)
    x = torch.rand(shape)
    start = time.perf_counter()
    qat = ana_fx.prepare(model, x, precision="int4", calibration=[x])
    prepared = time.perf_counter()
    integer = ana_fx.convert(qat)
    converted = time.perf_counter()
    with TemporaryDirectory() as folder:
        ana_fx.export(integer, Path(folder) / "model.onnx")
    return prepared - start, converted - prepared, time.perf_counter() - converted
