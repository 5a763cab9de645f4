"""Latency of our onnxruntime files against the float network's and onnxruntime's own static quantisation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ana_fx
from benchmarks.networks import DS_CNN, MOBILENET_V2, RESNET18, Network
from benchmarks.timing import interleaved
from examples.networks import VGG8

__all__ = ["export_float", "main", "runner", "session"]

VGG8_FULL = Network("VGG8, 1 × 32×32", VGG8, (8, 3, 32, 32))
CASES = (
    (VGG8_FULL, ("ternary", "int8")),
    (DS_CNN, ("int4", "int8")),
    (RESNET18, ("int4", "int8")),
    (MOBILENET_V2, ("int4", "int8")),
)
NUM_ROUNDS = 60


def main(console: Console) -> None:
    """Measure and print how many times faster than the float file each file is."""
    table = Table(title="speed over the float file: one thread, batch 1, the best of interleaved rounds")
    for column in ("network", "precision", "float", "ana_fx", "static QOperator", "static QDQ"):
        table.add_column(column, justify="left" if column in ("network", "precision") else "right")
    for network, precisions in CASES:
        for precision in precisions:
            with TemporaryDirectory() as folder:
                seconds = _seconds(network, precision, Path(folder))
            ratios = (f"{seconds['float'] / seconds[name]:.2f}" for name in ("ana_fx", "qoperator", "qdq"))
            table.add_row(network.name, precision, f"{1e3 * seconds['float']:.2f} ms", *ratios)
    console.print(table)


def _seconds(network: Network, precision: str, folder: Path) -> dict[str, float]:
    model, batch = network.model(), network.batch()
    with torch.no_grad():
        model(batch)  # batch norms with statistics
    qat = ana_fx.prepare(model.eval(), batch, precision=precision, calibration=[batch])
    ana_fx.export(ana_fx.convert(qat), folder / "ana_fx.onnx", io="float")
    export_float(model, batch, folder / "float.onnx")
    for name, form in (("qoperator", QuantFormat.QOperator), ("qdq", QuantFormat.QDQ)):
        _quantize_statically(folder / "float.onnx", folder / f"{name}.onnx", form, batch)
    names = ("float", "ana_fx", "qoperator", "qdq")
    return interleaved({name: runner(folder / f"{name}.onnx", batch[:1]) for name in names}, NUM_ROUNDS)


def export_float(model: nn.Module, batch: Tensor, path: Path) -> None:
    """The float network as torch writes it, with any batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        torch.onnx.export(
            model.eval(),
            (batch,),
            path,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )


def runner(path: Path, x: Tensor) -> Callable[[], Any]:
    """One run of a file on float inputs."""
    running = session(path)
    feed = {running.get_inputs()[0].name: x.numpy()}
    return lambda: running.run(None, feed)


def session(path: Path) -> onnxruntime.InferenceSession:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    def __init__(self, batch: Tensor) -> None:
        self.batches = iter([{"x": batch.numpy()}])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self.batches, None)


def _quantize_statically(source: Path, path: Path, form: Any, batch: Tensor) -> None:
    with _quiet_logging():
        quantize_static(
            source,
            path,
            _Batches(batch),
            quant_format=form,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Without the advice to pre-process the model first."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
