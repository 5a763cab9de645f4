"""The quickstart's digits on several processes: DistributedDataParallel, then one integer file.

Each process trains on its part of every batch; the first one converts, writes the file and verifies it.

    torchrun --nproc-per-node 2 examples/distributed_digits.py
    torchrun --nproc-per-node 4 examples/distributed_digits.py --epochs 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import ana_fx

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where a script finds `examples`

from examples.comparison import accuracy_of, evaluate
from examples.quickstart import BATCH_SIZE, LEARNING_RATE, Digits, digits_network, load


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on all processes, ship from the first."""
    options = parse(arguments)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        torch.manual_seed(0)  # the same network everywhere
        digits = load(seed=0)
        example = digits.train_images[:BATCH_SIZE]
        # From the same batch in each process come the same scales.
        qat = ana_fx.prepare(
            digits_network(),
            example,
            precision=options.precision,
            schedule=ana_fx.Schedule(),  # annealed noise, as in the paper
            calibration=[example],
        )
        train(qat, digits, options.epochs)
        if dist.get_rank() == 0:
            ship(qat, digits, options.out)
    finally:
        dist.destroy_process_group()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--precision", default="ternary", help="all-ternary, ternary, int2 … int8 (default: ternary)")
    parser.add_argument("--out", type=Path, default=Path("runs/distributed"), help="default: runs/distributed")
    options = parser.parse_args(arguments)
    if not dist.is_torchelastic_launched():
        parser.error("it runs in several processes; start it with torchrun --nproc-per-node 2 " + sys.argv[0])
    return options


def train(qat: GraphModule, digits: Digits, num_epochs: int) -> None:
    """Train in place, on this process's part of every batch."""
    data = TensorDataset(digits.train_images, digits.train_labels)
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data)
    loader = DataLoader(data, BATCH_SIZE // dist.get_world_size(), sampler=sampler)
    # A layer whose noise is gone stops learning: its parameters get no gradient, and DDP must not wait for one.
    net = DistributedDataParallel(qat, find_unused_parameters=True)
    optimizer = torch.optim.Adam(qat.parameters(), lr=LEARNING_RATE)
    annealer = ana_fx.Annealer(qat, num_epochs * len(loader))
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        net.train()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            annealer.step()


def ship(qat: GraphModule, digits: Digits, out: Path) -> None:
    """Convert, write the file, compare every bit, and say how good it is."""
    out.mkdir(parents=True, exist_ok=True)
    integer = ana_fx.convert(qat)
    ana_fx.export(integer, out / "digits.onnx", target="onnxruntime")
    print(ana_fx.verify(integer, out / "digits.onnx", digits.test_images))
    accuracy = accuracy_of(evaluate(integer, digits.test_images), digits.test_labels)
    print(f"{dist.get_world_size()} processes, accuracy of the integer program {accuracy:.2%}")


if __name__ == "__main__":
    main()
