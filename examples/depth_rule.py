"""Does a layer map without a weight deserve annealing time of its own? Two networks under both rules of depth.

A residual network and one with squeeze-and-excitation are trained to ternary weights and features under a partition,
with `Schedule(depth="layer_maps")`, where each sum, pool and table is a depth, and with `depth="weights"`, where it
shares the range of what feeds it.

    python examples/depth_rule.py                        # scikit-learn's digits
    python examples/depth_rule.py --data cifar10.npz     # x_train, y_train, x_test, y_test; images of bytes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from sklearn.datasets import load_digits
from torch import Tensor, nn

import ana_fx

Split = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions, perhaps a gate for each channel, and the sum with what went in."""

    def __init__(self, width: int, has_gate: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        gate = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 4, 1), nn.ReLU(), nn.Conv2d(width // 4, width, 1))
        self.gate = nn.Sequential(*gate, nn.Sigmoid()) if has_gate else None

    def forward(self, x: Tensor) -> Tensor:
        """Shaped as `x`."""
        y: Tensor = self.second(self.first(x))
        return F.relu((y if self.gate is None else y * self.gate(y)) + x)


class Network(nn.Module):
    """A stem, three blocks with pools between them, and a linear layer."""

    def __init__(self, channels: int, has_gates: bool, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks = [Block(width, has_gates) for _ in range(3)]
        self.blocks = nn.Sequential(blocks[0], nn.MaxPool2d(2), blocks[1], nn.MaxPool2d(2), blocks[2])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [N, 10]."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def data(path: Path | None, number: int) -> tuple[Split, Split]:
    """Images as floats around 0, and labels: for training, for the test."""
    if path is None:
        digits = load_digits()
        x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16 - 0.5, torch.tensor(digits.target)
        return (x[:1400], y[:1400]), (x[1400:], y[1400:])
    with np.load(path) as arrays:
        parts = [
            (
                F.avg_pool2d(torch.tensor(arrays[f"x_{part}"][:count]).permute(0, 3, 1, 2).float() / 255 - 0.5, 2),
                part,
                count,
            )
            for part, count in (("train", number), ("test", 2000))
        ]
        return tuple((x, torch.tensor(arrays[f"y_{part}"][:count])) for x, part, count in parts)  # type: ignore[return-value]  # two


def accuracy(depth: str, has_gates: bool, split: tuple[Split, Split], epochs: int, seed: int) -> tuple[float, int]:
    """Percent of right answers of the integer program on the test images, and the number of depths."""
    torch.manual_seed(seed)
    (images, labels), (test_images, test_labels) = split
    schedule = ana_fx.Schedule(depth=depth)
    model = Network(images.shape[1], has_gates)
    qat = ana_fx.prepare(model, images[:64], precision="all-ternary", schedule=schedule).train()
    annealer = ana_fx.Annealer(qat, epochs * (len(images) // 64))
    optimizer = torch.optim.Adam(qat.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in track(range(epochs), f"{depth}, seed {seed}", transient=True):
        for batch in torch.randperm(len(images))[: len(images) // 64 * 64].split(64):
            optimizer.zero_grad()
            F.cross_entropy(qat(images[batch]), labels[batch]).backward()
            optimizer.step()
            annealer.step()
        rate.step()
    program = ana_fx.convert(qat)
    with torch.no_grad():
        answers = program(test_images).argmax(1)
    num_depths = 1 + max(each.depth for each in ana_fx.annealing_ranges(qat).values())
    return 100 * float((answers == test_labels).float().mean()), num_depths


def main() -> None:
    """Print a line for each network, rule and seed, as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz with colour images of bytes")
    parser.add_argument("--images", type=int, default=4000, help="how many of them to train with")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = data(options.data, options.images)
    for seed in range(options.seeds):
        for has_gates in (False, True):
            for depth in ("layer_maps", "weights"):
                found, num_depths = accuracy(depth, has_gates, split, options.epochs, seed)
                name = "squeeze-and-excitation" if has_gates else "residual"
                print(f"{name}, depth={depth!r} ({num_depths} depths), seed {seed}: {found:.1f} %", flush=True)


if __name__ == "__main__":
    main()
