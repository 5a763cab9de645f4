"""A float VGG8 of an eighth of the width, trained on a part of CIFAR-10: what `examples.width_search` starts from.

    python -m examples.float_vgg --data FOLDER

It reads cifar10/cifar10_jpeg_10k.npz (x_train, y_train, x_test, y_test; images of bytes, channels last) in that folder
and writes pretrained/vgg8_eighth_cifar10.npz, its state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from examples.comparison import accuracy_of, evaluate
from examples.networks import VGG8
from examples.trained_networks import jpeg_images

__all__ = ["main", "train"]

_BATCH_SIZE, _LARGEST_RATE, _LARGEST_MOVE = 64, 5e-3, 4


def main() -> None:
    """Train it, say how good it is, store it."""
    parser = argparse.ArgumentParser(prog="python -m examples.float_vgg", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data and the trained networks")
    parser.add_argument("--out", type=Path, help="the file to write; by default in that folder")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = arguments.out or arguments.data / "pretrained" / "vgg8_eighth_cifar10.npz"
    torch.manual_seed(arguments.seed)
    (images, labels), test = jpeg_images(arguments.data)
    model = VGG8(8)
    train(model, images, labels, arguments.epochs)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})
    Console().print(f"{accuracy_of(evaluate(model, test[0]), test[1]):.1%} of {len(test[1])} test images; {out}")


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Adam on images that are moved and mirrored at random, with a rate that rises and falls once."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    num_steps = epochs * -(-len(images) // _BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LARGEST_RATE, num_steps)
    for _ in track(range(epochs), "epochs", console=Console(stderr=True)):
        for chosen in torch.randperm(len(images)).split(_BATCH_SIZE):
            if len(chosen) > 1:  # a batch norm needs two
                F.cross_entropy(model(_moved(images[chosen])), labels[chosen], label_smoothing=0.1).backward()
                optimizer.step()
                optimizer.zero_grad()
            schedule.step()


def _moved(images: Tensor) -> Tensor:
    """The images, all moved by one random distance, each mirrored with probability ½."""
    down, right = torch.randint(2 * _LARGEST_MOVE + 1, (2,)).tolist()
    height, width = images.shape[2:]
    padded = F.pad(images, [_LARGEST_MOVE] * 4)[:, :, down : down + height, right : right + width]
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, padded, padded.flip(3))


if __name__ == "__main__":
    main()
