"""Networks of two, three and five levels on handwritten digits: trained, converted, exported, every bit compared.

The levels of a quantizer need not be all integers of a range (paper, equation 1): one bit has two, −1 and 1 or 0 and
1, and `IntegerType.of_levels` takes any. Run `python examples/few_levels.py`, or with `--data mnist.npz` (x_train,
y_train, x_test, y_test, images of bytes).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from sklearn.datasets import load_digits
from torch import Tensor, nn

import ana_fx
from ana_fx import IntegerType, Precision

FIVE = IntegerType.of_levels([-4, -1, 0, 1, 4])
PRECISIONS = {
    "binary: weights and features -1, 1": Precision("bipolar", "bipolar"),
    "Heaviside: weights -1, 1, features 0, 1": Precision("bipolar", "uint1"),
    "ternary": Precision("ternary", "ternary"),
    "five levels: weights -4, -1, 0, 1, 4, features 0, 1, 2, 4, 8": Precision(
        FIVE, IntegerType.of_levels([0, 1, 2, 4, 8])
    ),
}
Split = tuple[Tensor, Tensor]


class Network(nn.Module):
    """Three convolutions and a linear layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, width), nn.MaxPool2d(2), *_block(width, width), nn.MaxPool2d(2), *_block(width, 2 * width)
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 1, H, W] to logits [N, 10]."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def data(path: Path | None) -> tuple[Split, Split]:
    """Images as floats in [0, 1], and labels: for training, for the test."""
    if path is None:
        digits = load_digits()
        x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
        return (x[:1400], y[:1400]), (x[1400:], y[1400:])
    with np.load(path) as arrays:
        images = {part: torch.tensor(arrays[f"x_{part}"]).float()[:, None] / 255 for part in ("train", "test")}
        labels = {part: torch.tensor(arrays[f"y_{part}"]) for part in ("train", "test")}
    return (images["train"], labels["train"]), (images["test"], labels["test"])


def train(
    model: nn.Module, images: Tensor, labels: Tensor, epochs: int, annealer: ana_fx.Annealer | None = None
) -> None:
    """Adam on batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in track(range(epochs), "epochs", transient=True):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            if annealer is not None:
                annealer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of right answers."""
    model.eval()
    return 100 * float((model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train each network and compare its file with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz with images of bytes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    (images, labels), test = data(options.data)
    for name, precision in {"float": None, **PRECISIONS}.items():
        found = [_run(precision, (images, labels), test, options.epochs, seed) for seed in range(options.seeds)]
        shown = ", ".join(f"{each:.1f} %" for each, _ in found)
        print(f"{name}: {shown}" + "".join(f"; {line}" for _, line in found[:1] if line), flush=True)


def _run(precision: Precision | None, training: Split, test: Split, epochs: int, seed: int) -> tuple[float, str]:
    """The accuracy on the test images, and what the comparison of the file with the network says."""
    torch.manual_seed(seed)
    images, labels = training
    if precision is None:
        model = Network()
        train(model.train(), images, labels, epochs)
        return accuracy(model, *test), ""
    qat = ana_fx.prepare(Network(), images[:64], precision=precision, schedule=ana_fx.Schedule(interval="same_start"))
    annealer = ana_fx.Annealer(qat, epochs * -(-len(images) // 64))
    train(qat.train(), images, labels, epochs, annealer)
    program = ana_fx.convert(qat)
    with TemporaryDirectory() as folder:
        report = ana_fx.export(program, Path(folder) / "model.onnx")
        compared = ana_fx.verify(program, report.path, inputs=test[0][:256])
    return accuracy(program, *test), f"{compared.num_different} of {compared.num_outputs:,} outputs of the file differ"


if __name__ == "__main__":
    main()
