"""The paper's VGG8 on CIFAR-10, trained with annealed noise from the first step.

It writes a checkpoint after every epoch and goes on from it when it is started again, with the same
numbers as without the interruption.

    python examples/cifar10_vgg.py --download --epochs 100
    python examples/cifar10_vgg.py --precision all-ternary --interval same_start --width 4
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip, ToTensor

import ana_fx

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where a script finds `examples`

from examples.comparison import accuracy_of, compare, evaluate, report
from examples.networks import VGG8

# What a checkpoint must have in common with the run that goes on from it.
SETTINGS = ("epochs", "batch_size", "lr", "precision", "interval", "strategy", "noise", "width", "seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, convert, export, compare; the exit code is 1 if any output differs."""
    options = parse(arguments)
    console = Console()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    train_set, (images, labels) = load(options.data, is_downloaded=options.download)
    loader = DataLoader(train_set, options.batch_size, shuffle=True, num_workers=options.workers)
    schedule = ana_fx.Schedule(noise=options.noise, strategy=options.strategy, interval=options.interval)
    net = VGG8(options.width)
    qat = ana_fx.prepare(net, images[:2], precision=options.precision, schedule=schedule).to(options.device)

    training = Training(qat, options, steps_per_epoch=len(loader))
    if options.fresh:
        training.checkpoint.unlink(missing_ok=True)
    if training.resume():
        console.print(f"Going on after epoch {training.epoch} of {training.checkpoint}")
    with progress_bar(console) as progress:
        training.run(loader, images, labels, progress)

    integer = ana_fx.convert(qat.cpu())
    print(ana_fx.describe(integer))
    results = compare(qat, integer, images[: options.compare], options.out)
    for result in results:
        if result.file is not None:
            print(ana_fx.verify(integer, result.file.path))  # on random inputs over the whole range
    console.print(report(results, labels[: options.compare]))
    return int(any(result.num_different for result in results))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="folder that holds cifar-10-batches-py")
    add("--download", action="store_true", help="fetch the data set into that folder first")
    add("--out", type=Path, default=Path("runs/cifar10_vgg"), help="folder of the checkpoint and the files")
    add("--fresh", action="store_true", help="start over, whatever the checkpoint says")
    add("--epochs", type=int, default=100, help="the paper trains for 500")
    add("--batch-size", type=int, default=256, help="images of a step")
    add("--lr", type=float, default=1e-3, help="Adam's learning rate; a tenth of it after 80 %% of the epochs")
    add("--width", type=int, default=1, help="divisor of every layer's width")
    add("--precision", default="ternary", help="all-ternary, ternary, int2 … int8")
    for name, kind, default in (
        ("interval", ana_fx.DecayInterval, "partition"),
        ("strategy", ana_fx.Strategy, "mode"),
        ("noise", ana_fx.NoiseType, "uniform"),
    ):
        add(
            f"--{name}",
            choices=[member.value for member in kind],
            default=default,
            help=f"the schedule's {name}",
        )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    add("--workers", type=int, default=0, help="processes that load images")
    add(
        "--compare",
        type=int,
        default=1000,
        help="test images that the integer program and the files are run on",
    )
    add("--seed", type=int, default=0, help="seed of all random numbers")
    return parser.parse_args(arguments)


def load(folder: Path, *, is_downloaded: bool) -> tuple[CIFAR10, tuple[Tensor, Tensor]]:
    """The augmented training set, and the test images with their labels.

    Pixels stay in [0, 1], so that the input is unsigned; the first batch norm standardises them.
    """
    augmented = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), ToTensor()])
    try:
        train_set = CIFAR10(folder, train=True, transform=augmented, download=is_downloaded)
        test_set = CIFAR10(folder, train=False)
    except RuntimeError as error:
        raise SystemExit(
            f"found no complete copy of CIFAR-10 in {folder / CIFAR10.base_folder}; add --download to fetch it, "
            f"or unpack {CIFAR10.filename} into {folder}, or say with --data where it is"
        ) from error
    images = torch.from_numpy(test_set.data).permute(0, 3, 1, 2).float() / 255
    return train_set, (images.contiguous(), torch.tensor(test_set.targets))


class Training:
    """A prepared model and everything that changes while it is trained.

    Args:
        qat: The model.
        options: The options of the program.
        steps_per_epoch: Batches of an epoch.
    """

    def __init__(self, qat: GraphModule, options: argparse.Namespace, steps_per_epoch: int) -> None:
        self.qat = qat
        self.num_epochs: int = options.epochs
        self.device = torch.device(options.device)
        self.checkpoint: Path = options.out / "checkpoint.pt"
        self.settings = {name: getattr(options, name) for name in SETTINGS}
        self.optimizer = torch.optim.Adam(qat.parameters(), lr=options.lr)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [round(0.8 * options.epochs)])
        self.annealer = ana_fx.Annealer(qat, options.epochs * steps_per_epoch)
        self.epoch = 0  # that are done

    def run(self, loader: DataLoader[Any], images: Tensor, labels: Tensor, progress: Progress) -> None:
        """Train the epochs that are left."""
        epochs = progress.add_task("epochs", total=self.num_epochs, completed=self.epoch, facts="")
        steps = progress.add_task("steps", total=len(loader), facts="")
        while self.epoch < self.num_epochs:
            progress.reset(steps)
            loss = self._run_epoch(loader, progress, steps)
            accuracy = accuracy_of(evaluate(self.qat, images.to(self.device)).cpu(), labels)
            self.epoch += 1
            self.save()
            facts = f"loss {loss:.4f}  accuracy {accuracy:.2%}  progress {self.annealer.progress:.0%}"
            progress.update(epochs, advance=1, facts=facts)

    def _run_epoch(self, loader: DataLoader[Any], progress: Progress, task: Any) -> float:
        self.qat.train()
        loss_sum = torch.zeros((), device=self.device)
        for images, labels in loader:
            logits = self.qat(images.to(self.device))
            loss = nn.functional.cross_entropy(logits, labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.annealer.step()
            loss_sum += loss.detach()
            progress.advance(task)
        self.scheduler.step()
        return float(loss_sum) / len(loader)

    def save(self) -> None:
        """Write the checkpoint: the old one stays until the new one is whole."""
        state = {
            "settings": self.settings,
            "epoch": self.epoch,
            "model": self.qat.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "annealer": self.annealer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.checkpoint)

    def resume(self) -> bool:
        """Go on from the checkpoint if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, map_location="cpu")
        found, needed = state["settings"], self.settings
        if found != needed:
            different = [f"{name} {found[name]}, here {needed[name]}" for name in needed if found[name] != needed[name]]
            raise SystemExit(
                f"{self.checkpoint} is of a run with other settings: {'; '.join(different)}; "
                f"use its settings, or choose another folder with --out, or start over with --fresh"
            )
        self.epoch = state["epoch"]
        self.qat.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.annealer.load_state_dict(state["annealer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        return True


def progress_bar(console: Console) -> Progress:
    """A bar for the epochs and one for the steps of the current one."""
    return Progress(
        TextColumn("{task.description:<6}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    sys.exit(main())
