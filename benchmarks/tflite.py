"""`python -m benchmarks.tflite [targets]`: TFLite files in every kernel set that their target names, and their speed.

The rows are those of docs/targets/tflite.md. Networks with random weights, trained for a step; half of the inputs lie
beyond the calibrated range. Speed is that of LiteRT's kernels on one thread and one sample, over onnxruntime's on the
float file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

import ana_fx
from ana_fx import AnaFxError
from benchmarks.latency import export_float, runner
from benchmarks.networks import DS_CNN, MOBILENET_V2_QUARTER, VGG8_EIGHTH, Network
from benchmarks.timing import interleaved
from examples.networks import ResNet20

__all__ = ["main"]

RESNET20 = Network("ResNet-20, 16 × 32×32", ResNet20, (16, 3, 32, 32))
NETWORKS = (VGG8_EIGHTH, RESNET20, MOBILENET_V2_QUARTER, DS_CNN)
TARGETS = ("litert", "tflite-micro", "tflite")
PRECISIONS = ("ternary", "int4", "int8")
NUM_INPUTS, BATCH = 10_000, 100
NUM_IN_SLOW_KERNELS = {VGG8_EIGHTH: 500, RESNET20: 200, MOBILENET_V2_QUARTER: 500}  # of reference
NUM_ROUNDS = 40


def main(names: Sequence[str] = TARGETS) -> None:
    """Run every case of these targets and print the table."""
    print("| target | network | precision | differing outputs | outputs | bytes | speed over float |")
    print("|---|---|---|---|---|---|---|")
    for target in names:
        for network in NETWORKS:
            for precision in PRECISIONS:
                head = [target, network.name.partition(",")[0], precision]
                print(f"| {' | '.join([*head, *_row(target, network, precision)])} |", flush=True)


def _row(target: str, network: Network, precision: str) -> list[str]:
    num_inputs = NUM_INPUTS if target == "litert" else NUM_IN_SLOW_KERNELS.get(network, NUM_INPUTS)
    model, batch = network.model(), network.batch()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            program = _program(model, batch, precision, target)
            written = ana_fx.export(program, path)
        except AnaFxError as error:
            reasons = str(error).splitlines()[1:-1]
            return [f"refused: {len(reasons)} layer maps", "", "", ""]
        different, compared = _compared(program, path, batch.shape[1:], num_inputs)
        counts = ", ".join(f"{name} {count}" for name, count in different.items())
        speed = _speed(model, batch, path, Path(folder) / "float.onnx") if target == "litert" else ""
    return [counts, f"{compared:,}", f"{written.bytes:,}", speed]


def _program(model: nn.Module, batch: Tensor, precision: str, target: str) -> torch.fx.GraphModule:
    qat = ana_fx.prepare(model, batch, precision=precision, target=target)
    qat.train()(batch)
    return ana_fx.convert(qat.eval())


def _compared(
    program: torch.fx.GraphModule, path: Path, shape: tuple[int, ...], num_inputs: int
) -> tuple[dict[str, int], int]:
    """How many outputs differ in each kernel set, and how many were compared."""
    torch.manual_seed(1)
    different: dict[str, int] = {}
    compared = 0
    for start in range(0, num_inputs, BATCH):
        x = torch.rand(BATCH, *shape) if start % (2 * BATCH) else 2 * torch.randn(BATCH, *shape)
        report = ana_fx.verify(program, path, x)
        compared += report.num_outputs
        for title, count in zip(report.runtimes, report.different, strict=True):
            name = title.partition(" ")[0]
            different[name] = different.get(name, 0) + count
    return different, compared


def _speed(model: nn.Module, batch: Tensor, path: Path, float_path: Path) -> str:
    export_float(model, batch, float_path)
    seconds = interleaved({"float": runner(float_path, batch[:1]), "ours": _invoke(path)}, NUM_ROUNDS)
    return f"{seconds['float'] / seconds['ours']:.2f}"


def _invoke(path: Path) -> Callable[[], object]:
    """One run of LiteRT with XNNPACK on one thread."""
    interpreter = import_module("ai_edge_litert.interpreter").Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], np.int8))
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


if __name__ == "__main__":
    main(sys.argv[1:] or TARGETS)
