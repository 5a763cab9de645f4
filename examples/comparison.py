"""One network in all its forms: the trained model, the integer program, and every ONNX file of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from examples.onnx_file import OnnxFile, latencies

__all__ = ["Result", "accuracy_of", "compare", "evaluate", "layer_table", "report"]

_BATCH_SIZE = 256


@dataclass(frozen=True)
class Result:
    """What one form of the network gave.

    Args:
        name: What the table calls it.
        logits: Its outputs for all images.
        num_different: How many of them differ from the integer program's; None if they need not be equal.
        file: The file that was run, if it is one.
    """

    name: str
    logits: Tensor
    num_different: int | None = None
    file: OnnxFile | None = None


def compare(qat: GraphModule, integer: GraphModule, images: Tensor, out: Path) -> list[Result]:
    """Write a file for each target and each kind of border, run all forms, and count what differs.

    Args:
        qat: The trained model.
        integer: What `convert` made of it.
        images: What all forms are run on.
        out: The folder of the files.
    """
    wanted = evaluate(integer, images)

    def result(name: str, logits: Tensor, file: OnnxFile | None = None) -> Result:
        is_different = logits.view(torch.int32) != wanted.view(torch.int32)  # the bits, so that −0 is not 0
        return Result(name, logits, int(is_different.sum()), file)

    results = [result("qat.eval()", evaluate(qat, images)), result("integer program", wanted)]
    for target in ("onnxruntime", "integer"):
        for io in ("float", "integer"):
            written = ana_fx.export(integer, out / f"{target}_{io}_io.onnx", target=target, io=io)
            file = OnnxFile(written.path)
            results.append(result(f"{target}, {io} i/o", in_batches(file.logits, images), file))
    return results


def layer_table(integer: GraphModule) -> Table:
    """What each layer became, as narrow as a terminal; `ana_fx.describe` has all columns."""
    summary = ana_fx.describe(integer)
    table = Table(title=summary.title, title_justify="left")
    table.add_column("layer")
    for column in ("weights", "output", "accumulator at most", "proven at"):
        table.add_column(column, justify="right")
    for row in summary.rows:
        accumulator = "–" if row.accumulator is None else f"{row.accumulator:,}"
        table.add_row(row.name, row.weight or "–", row.output or "–", accumulator, row.proof or "–")
    return table


def report(results: Sequence[Result], labels: Tensor, image: Tensor | None = None) -> Table:
    """The results as a table.

    Args:
        results: A row each.
        labels: The class of each image.
        image: What the latency of every file is measured on, relative to the first file; None leaves it out.
    """
    files = [result.file for result in results if result.file is not None]
    title = f"{len(labels):,} test images" + ("" if image is None else "; latency of one image on one thread")
    table = Table(title=title, title_justify="left")
    table.add_column("network")
    for column in ("accuracy", "differing", "bytes", *(["latency"] if image is not None else [])):
        table.add_column(column, justify="right")
    seconds = [0.0] * len(files) if image is None else latencies(files, image)
    for result in results:
        cells = [result.name, f"{accuracy_of(result.logits, labels):.2%}", "–", "–", "–"]
        if result.num_different is not None:
            cells[2] = f"{result.num_different} of {result.logits.numel():,}"
        if result.file is not None:
            taken = seconds[files.index(result.file)]
            cells[3] = f"{result.file.bytes:,}"
            cells[4] = f"{1e6 * taken:.0f} µs, ×{taken / seconds[0]:.2f}" if image is not None else "–"
        table.add_row(*cells[: len(table.columns)])
    return table


@torch.no_grad()
def evaluate(net: nn.Module, images: Tensor) -> Tensor:
    """Logits in eval mode."""
    return in_batches(net.eval(), images)


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """The share of images whose largest logit stands at the label."""
    return float((logits.argmax(1) == labels).float().mean())


def in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The function of all images, a batch at a time."""
    return torch.cat([function(batch) for batch in images.split(_BATCH_SIZE)])
