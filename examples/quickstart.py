"""From a float network to integer ONNX files in a minute: scikit-learn's scans of digits.

Trains a small convolutional network on floats, trains it on with ternary weights and 2-bit features
while the noise of its layers is annealed from the input to the output, lowers it to integers,
writes it for the targets onnxruntime and integer, and compares every output bit over the whole test set.

    python examples/quickstart.py
    python examples/quickstart.py --precision int4 --epochs 10
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where a script finds `examples`

from examples.comparison import Result, accuracy_of, compare, evaluate, layer_table, report
from examples.float_onnx import export_float
from examples.onnx_file import OnnxFile
from examples.training_curve import Epoch, save_training_curve

BATCH_SIZE = 64
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Digits:
    """Grey images, [number, 1, 8, 8] in [0, 1], and their digits."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole way; the exit code is 1 if any output differs."""
    options = parse(arguments)
    torch.set_num_threads(1)  # the network is small: threads would mostly wait for each other
    console = Console()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    digits = load(options.seed)
    schedule = ana_fx.Schedule(interval="partition")

    with progress_bar(console) as progress:
        net = digits_network()
        float_epochs = train(net, digits, max(1, options.epochs // 2), progress, "float")
        qat = ana_fx.prepare(net, digits.train_images[:BATCH_SIZE], precision=options.precision, schedule=schedule)
        quantized_epochs = train(qat, digits, options.epochs, progress, options.precision)

    integer = ana_fx.convert(qat)
    console.print(layer_table(integer))

    picture = options.out / "training.png"
    title = f"Digits: float, then {options.precision} with annealed noise"
    ranges = ana_fx.annealing_ranges(qat)
    save_training_curve(picture, float_epochs, quantized_epochs, ranges, schedule, title=title)

    results = [
        *float_results(net, digits, options.out),
        *compare(qat, integer, digits.test_images, options.out),
    ]
    console.print(report(results, digits.test_labels, digits.test_images[:1]))
    print(f"The files and {picture.name} are in {options.out}; docs/tutorial.md goes the same way step by step")
    return int(any(result.num_different for result in results))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=20, help="quantised epochs, after half as many float ones (default: 20)"
    )
    parser.add_argument("--precision", default="ternary", help="all-ternary, ternary, int2 … int8 (default: ternary)")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="default: runs/quickstart")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs is positive, got {options.epochs}")
    return options


def load(seed: int) -> Digits:
    """The 1,797 digits, a third of them for testing."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(bunch.target)
    train, test = train_test_split(range(len(labels)), test_size=1 / 3, random_state=seed, stratify=labels)
    return Digits(images[train], labels[train], images[test], labels[test])


def digits_network() -> nn.Sequential:
    """Three blocks of convolution, batch norm and ReLU, and a linear head."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 48, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(48),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(48, 96, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(96),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(96, 128, 3, padding=1, bias=False),
            norm3=nn.BatchNorm2d(128),
            relu3=nn.ReLU(),
            pool3=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            head=nn.Linear(128 * 2 * 2, 10),
        )
    )


def train(net: nn.Module, digits: Digits, num_epochs: int, progress: Progress, name: str) -> list[Epoch]:
    """Train in place; a model from `prepare` has its noise annealed on the way."""
    num_steps = -(-len(digits.train_images) // BATCH_SIZE)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(0.8 * num_epochs)])
    annealer = ana_fx.Annealer(net, num_epochs * num_steps) if isinstance(net, GraphModule) else None
    stop = net.meta["schedule"].stop if isinstance(net, GraphModule) else 1.0
    task = progress.add_task(name, total=num_epochs, facts="")
    epochs = []
    for _ in range(num_epochs):
        loss_sum = 0.0
        net.train()
        for batch in torch.randperm(len(digits.train_images)).split(BATCH_SIZE):
            loss = nn.functional.cross_entropy(net(digits.train_images[batch]), digits.train_labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if annealer is not None:
                annealer.step()
            loss_sum += float(loss.detach()) * len(batch)
        scheduler.step()
        accuracy = accuracy_of(evaluate(net, digits.test_images), digits.test_labels)
        epochs.append(Epoch(loss_sum / len(digits.train_images), accuracy))
        facts = f"loss {epochs[-1].loss:.4f}  accuracy {accuracy:.1%}"
        if annealer is not None:
            facts += f"  annealed {min(1.0, annealer.progress / stop):.0%}"
        progress.update(task, advance=1, facts=facts)
    return epochs


def float_results(net: nn.Sequential, digits: Digits, out: Path) -> list[Result]:
    """The float network, and its ONNX file, which latencies are compared with."""
    path = out / "float.onnx"
    export_float(net, digits.test_images.shape[1:], path)
    file = OnnxFile(path)
    return [
        Result("float network", evaluate(net, digits.test_images)),
        Result("float ONNX", file.logits(digits.test_images), file=file),
    ]


def progress_bar(console: Console) -> Progress:
    """A bar for each phase, with what the last epoch gave."""
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
