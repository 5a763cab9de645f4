"""What weights within ±63 cost: `python -m benchmarks.seven_bits --weights FILE --data FILE`.

A trained ResNet-20 is calibrated for onnxruntime with int8 weights within ±63 and with all eight bits, and its files
are run here. On an x86 processor without VNNI those with all eight bits differ from eval mode.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ana_fx
from ana_fx.targets.runtimes.kernel_families import this_family
from examples.networks import ResNet20

__all__ = ["main"]

TARGETS = ("onnxruntime", "onnxruntime-vnni")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_CALIBRATION, BATCH = 512, 64


def main() -> None:
    """Measure and print accuracies and differing outputs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seven_bits", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="state of a ResNet-20 as .npz")
    parser.add_argument("--data", type=Path, required=True, help=".npz with x_train, x_test (uint8, NHWC) and y_test")
    parser.add_argument("--choices", type=int, default=3, help="random choices of calibration images")
    options = parser.parse_args()
    model = ResNet20().eval()
    model.load_state_dict({key: torch.from_numpy(value) for key, value in np.load(options.weights).items()})
    data = np.load(options.data)
    train, test, labels = _images(data["x_train"]), _images(data["x_test"]), torch.from_numpy(data["y_test"])
    family = this_family()
    title = f"int8 by calibration on {NUM_CALIBRATION} images, onnxruntime on {family.value if family else 'unknown'}"
    table = Table("choice", "target", "eval mode", "file", "outputs that differ", title=title)
    for choice in range(options.choices):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(choice))
        for target in TARGETS:
            table.add_row(str(choice), target, *_row(model, train[order[:NUM_CALIBRATION]], test, labels, target))
    with torch.no_grad():
        accuracy = _accuracy(model(test), labels)
    table.caption = f"float: {accuracy:.2f} % of {len(test)} images"
    Console(width=110).print(table)


def _images(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std


@torch.no_grad()
def _row(model: nn.Module, calibration: Tensor, test: Tensor, labels: Tensor, target: str) -> tuple[str, str, str]:
    qat = ana_fx.prepare(model, test[:2], target=target, calibration=calibration.split(BATCH)).eval()
    wanted = qat(test)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ana_fx.export(ana_fx.convert(qat), path, io="float")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        found = torch.cat([torch.from_numpy(session.run(None, {name: x.numpy()})[0]) for x in test.split(BATCH)])
    different = f"{int((found != wanted).sum()):,} of {wanted.numel():,}"
    return f"{_accuracy(wanted, labels):.2f} %", f"{_accuracy(found, labels):.2f} %", different


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main()
