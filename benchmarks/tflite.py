"""`python -m benchmarks.tflite`: TFLite files in every kernel set that their target names, and their speed.

The rows are those of docs/targets/tflite.md. Networks with random weights, trained for a step; half of the inputs lie
beyond the calibrated range. Speed is that of LiteRT with XNNPACK on one thread and one sample, over onnxruntime's on
the float file, in turns. `--inputs` says how many samples every kernel set of a target sees, the slow ones too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
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

__all__ = ["NETWORKS", "NUM_INPUTS", "PRECISIONS", "differing_outputs", "main", "trained_program"]


class _Joined(nn.Module):
    """A residual block whose sum is joined with what it adds, a strided convolution, a max pool, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, [batch, 3, 16, 16]."""
        x = self.stem(images)
        x = torch.cat([x, torch.relu(x + self.block(x))], 1)
        logits: Tensor = self.head(self.pool(self.narrow(x)).mean((2, 3)))
        return logits


RESNET20 = Network("ResNet-20, 16 × 32×32", ResNet20, (16, 3, 32, 32))
JOINED = Network("residual with concat, 32 × 16×16", _Joined, (32, 3, 16, 16))
NETWORKS = {
    network.name.partition(",")[0]: network for network in (JOINED, DS_CNN, VGG8_EIGHTH, MOBILENET_V2_QUARTER, RESNET20)
}
TARGETS = ("litert", "tflite-micro", "tflite")
PRECISIONS = ("ternary", "int4", "int8")
NUM_INPUTS, BATCH = 10_000, 100
NUM_ROUNDS = 40


def main() -> None:
    """Run the cases that are wanted and print the table, a row when it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tflite", description=__doc__)
    parser.add_argument("--targets", nargs="*", default=TARGETS, choices=TARGETS)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--inputs", type=int, default=NUM_INPUTS, help=f"for each kernel set (default: {NUM_INPUTS:,})")
    arguments = parser.parse_args()
    print("| target | network | precision | differing outputs | inputs | outputs | bytes | speed | seconds |")
    print("|---|---|---|---|--:|--:|--:|--:|--:|")
    for target in arguments.targets:
        for network in arguments.networks:
            for precision in arguments.precisions:
                start = time.perf_counter()
                cells = [target, network, precision, *_row(target, NETWORKS[network], precision, arguments.inputs)]
                print(f"| {' | '.join(cells)} | {time.perf_counter() - start:.0f} |", flush=True)


def _row(target: str, network: Network, precision: str, num_inputs: int) -> list[str]:
    model, batch = network.model(), network.batch()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            program = trained_program(model, batch, precision, target)
            written = ana_fx.export(program, path)
        except AnaFxError as error:
            reasons = str(error).splitlines()[1:-1]
            return [f"refused: {len(reasons)} layer maps", "", "", "", ""]
        different, compared = differing_outputs(program, path, batch.shape[1:], num_inputs)
        counts = ", ".join(f"{name} {count}" for name, count in different.items())
        speed = "" if target == "tflite-micro" else _speed(model, batch, path, Path(folder) / "float.onnx")
    return [counts, f"{num_inputs:,}", f"{compared:,}", f"{written.bytes:,}", speed]


def trained_program(model: nn.Module, batch: Tensor, precision: str, target: str) -> torch.fx.GraphModule:
    """The program of a network after a step of training."""
    qat = ana_fx.prepare(model, batch, precision=precision, target=target)
    qat.train()(batch)
    return ana_fx.convert(qat.eval())


def differing_outputs(
    program: torch.fx.GraphModule, path: Path, shape: tuple[int, ...], num_inputs: int
) -> tuple[dict[str, int], int]:
    """How many outputs differ in each runtime of the target, and how many were compared."""
    torch.manual_seed(1)
    different: dict[str, int] = {}
    compared = 0
    for index in range(-(-num_inputs // BATCH)):
        size = min(BATCH, num_inputs - index * BATCH)
        x = 2 * torch.randn(size, *shape) if index % 2 else torch.rand(size, *shape)
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
    main()
