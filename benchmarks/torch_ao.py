"""prepare + convert beside torch.ao's FX flow for the same job, taking turns in one process."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_qat_fx

import ana_fx
from benchmarks.timing import NUM_THREADS

__all__ = ["report"]

NETWORKS = ("resnet18", "mobilenet_v2", "resnet50")
NUM_ROUNDS = 9

Flow = Callable[[nn.Module, Tensor], tuple[float, float]]


def report(console: Console) -> None:
    """Print processor seconds of both, the best of some rounds, and their ratio."""
    from torchvision import models  # only the comparison needs it

    torch.set_num_threads(NUM_THREADS)
    table = Table(title=f"processor seconds of prepare + convert, int8, 2×3×64×64, best of {NUM_ROUNDS} rounds")
    for column in ("network", "ana_fx, proofs included", "torch.ao", "ratio"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name in NETWORKS:
        ours, theirs = _best(models.get_model(name, weights=None), torch.rand(2, 3, 64, 64))
        shown = [f"{first:.2f} + {second:.2f} = {first + second:.2f}" for first, second in (ours, theirs)]
        table.add_row(name, *shown, f"{sum(ours) / sum(theirs):.2f}")
    console.print(table)


def _best(model: nn.Module, x: Tensor) -> list[tuple[float, float]]:
    """For each flow the fewest seconds of any round, after one to warm up."""
    flows: tuple[Flow, ...] = (_ana_fx, _torch_ao)
    rounds = [[flow(model, x) for flow in flows] for _ in range(NUM_ROUNDS + 1)][1:]
    return [min((each[index] for each in rounds), key=sum) for index in range(len(flows))]


def _ana_fx(model: nn.Module, x: Tensor) -> tuple[float, float]:
    start = time.process_time()
    qat = ana_fx.prepare(model, x)
    prepared = time.process_time() - start
    qat.train()(x)  # gives the scales; not counted, as for torch.ao
    start = time.process_time()
    ana_fx.convert(qat)
    return prepared, time.process_time() - start


def _torch_ao(model: nn.Module, x: Tensor) -> tuple[float, float]:
    model = copy.deepcopy(model).train()  # not counted; it works on the model itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is deprecated, and that its observers have seen little
        start = time.process_time()
        qat = prepare_qat_fx(model, get_default_qat_qconfig_mapping("fbgemm"), (x,))
        prepared = time.process_time() - start
        qat(x)
        qat.eval()
        start = time.process_time()
        convert_fx(qat)
        return prepared, time.process_time() - start
