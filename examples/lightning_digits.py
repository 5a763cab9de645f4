"""The quickstart's digits under Lightning's trainer, which needs the extra `lightning`.

Noise is annealed as in the paper: a callback does it after each step of the optimiser. The module and the trainer are
those of a float network.

    python examples/lightning_digits.py
    python examples/lightning_digits.py --precision int4 --epochs 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

import ana_fx
from ana_fx.lightning import AnnealingCallback

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where a script finds `examples`

from examples.comparison import accuracy_of, evaluate
from examples.quickstart import BATCH_SIZE, LEARNING_RATE, digits_network, load


class Classifier(LightningModule):
    """What Lightning needs to know about the training; nothing in it knows of quantisation."""

    def __init__(self, net: GraphModule) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, convert, write the file, compare every bit."""
    options = parse(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = load(seed=0)
    options.out.mkdir(parents=True, exist_ok=True)

    qat = ana_fx.prepare(
        digits_network(),
        digits.train_images[:BATCH_SIZE],
        precision=options.precision,
        schedule=ana_fx.Schedule(),  # anneals; without it there is no need of a callback
    )
    loader = DataLoader(TensorDataset(digits.train_images, digits.train_labels), BATCH_SIZE, shuffle=True)
    trainer = Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        callbacks=[AnnealingCallback()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=options.out,
    )
    trainer.fit(Classifier(qat), loader)

    integer = ana_fx.convert(qat)
    ana_fx.export(integer, options.out / "digits.onnx", target="onnxruntime")
    print(ana_fx.verify(integer, options.out / "digits.onnx", digits.test_images))
    accuracy = accuracy_of(evaluate(integer, digits.test_images), digits.test_labels)
    print(f"accuracy of the integer program {accuracy:.2%}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--precision", default="ternary", help="all-ternary, ternary, int2 … int8 (default: ternary)")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"), help="default: runs/lightning")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
