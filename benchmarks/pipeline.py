"""Seconds of prepare, convert and export; how they grow with the graph; and torch.ao's beside them."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import ana_fx
from benchmarks import scaling, torch_ao
from examples.networks import DSCNN, VGG8

__all__ = ["main"]


def main(console: Console) -> None:
    """Measure and print the three tables."""
    from torchvision import models  # only the largest network needs it

    table = Table(title=f"seconds of the pipeline, int8, {torch.get_num_threads()} thread(s)")
    for column in ("network", "prepare", "convert", "export"):
        table.add_column(column, justify="left" if column == "network" else "right")
    networks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "VGG8": (VGG8(), (2, 3, 32, 32)),
        "DS-CNN": (DSCNN(), (2, 1, 49, 10)),
        "ResNet-50": (models.resnet50(weights=None), (2, 3, 64, 64)),
    }
    for name, (model, shape) in networks.items():
        table.add_row(name, *(f"{each:.2f}" for each in _seconds(model, shape)))
    console.print(table)
    torch_ao.report(console)
    scaling.report(console)


def _seconds(model: nn.Module, shape: tuple[int, ...]) -> tuple[float, float, float]:
    torch.manual_seed(0)
    x = torch.rand(shape)
    start = time.perf_counter()
    qat = ana_fx.prepare(model, x, calibration=[x])
    prepared = time.perf_counter()
    integer = ana_fx.convert(qat)
    converted = time.perf_counter()
    with TemporaryDirectory() as folder:
        ana_fx.export(integer, Path(folder) / "model.onnx")
    return prepared - start, converted - prepared, time.perf_counter() - converted
