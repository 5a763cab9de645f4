"""MLPerf Tiny's trained networks as .tflite files: accuracy of int8, and what depends on the kernels.

    python -m examples.mlperf_tiny --data FOLDER

For each network, target and choice of samples: the accuracy with calibration alone, after `reconstruct`, and after a
short training with the float network as its teacher, no step of which reads a label. The files of the first choices
are run in every kernel set that their target names, on all test samples.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from examples.comparison import accuracy_of, evaluate
from examples.trained_networks import TRAINED

__all__ = ["FORMS", "Case", "Outcome", "main", "run_case", "table_of", "teach"]

FORMS = ("calibration", "reconstruct", "training")
"""How a float network became int8: by calibration alone, by `reconstruct`, by a short training."""

_NETWORKS = ("ResNet8", "DS-CNN")
_TARGETS = ("tflite", "litert", "tflite-micro")
_BATCH_SIZE = 64
_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Case:
    """A network of `TRAINED`, a target, how it becomes int8, and the seed that chooses and orders the samples."""

    network: str
    target: str
    form: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a case gave.

    Args:
        case: The case.
        float_accuracy: Of the float network.
        accuracy: Of the integers, on the test samples.
        different: For each kernel set how many outputs differ from the model's; None where the file was not run.
        num_outputs: How many each of them gave.
        bytes: Size of the file; 0 where none was written.
    """

    case: Case
    float_accuracy: float
    accuracy: float
    different: dict[str, int] | None = None
    num_outputs: int = 0
    bytes: int = 0


def main() -> None:
    """Run all cases that are wanted, show and store what they gave."""
    parser = argparse.ArgumentParser(prog="python -m examples.mlperf_tiny", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data and the trained networks")
    parser.add_argument("--networks", nargs="*", default=list(_NETWORKS), choices=_NETWORKS)
    parser.add_argument("--targets", nargs="*", default=list(_TARGETS), choices=_TARGETS)
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=FORMS)
    parser.add_argument("--samples", type=int, default=512, help="for calibration; fewer where there are fewer")
    parser.add_argument("--epochs", type=int, default=3, help="of the short training, over all training samples")
    parser.add_argument("--choices", type=int, default=3, help="of samples")
    parser.add_argument("--run-files", type=int, default=1, metavar="N", help="run the files of the first N choices")
    parser.add_argument("--json", type=Path, help="where to store the outcomes")
    arguments = parser.parse_args()
    cases = [
        Case(network, target, form, seed)
        for network in arguments.networks
        for target in arguments.targets
        for form in arguments.forms
        for seed in range(arguments.choices)
    ]
    outcomes = []
    for case in cases:
        runs_file = case.seed < arguments.run_files
        outcome = run_case(case, arguments.data, arguments.samples, arguments.epochs, runs_file=runs_file)
        outcomes.append(outcome)
        Console(stderr=True).print(outcome)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1), encoding="utf-8")
    Console().print(table_of(outcomes))


def run_case(case: Case, data: Path, num_samples: int, num_epochs: int, *, runs_file: bool) -> Outcome:
    """Quantise a network without labels, measure it on the test samples, and run its file on them."""
    network = TRAINED[case.network]
    model, examples = network.load(data), network.examples(data)
    torch.manual_seed(case.seed)
    samples = examples.calibration[torch.randperm(len(examples.calibration))[:num_samples]]
    batches = samples.split(_BATCH_SIZE)
    qat = ana_fx.prepare(
        model,
        samples[:2],
        precision=network.precision("int8"),
        target=case.target,
        calibration=batches,
    )
    if case.form == "reconstruct":
        ana_fx.reconstruct(qat, batches)
    elif case.form == "training":
        teach(qat, model, examples.calibration, num_epochs)
    measured = Outcome(
        case,
        accuracy_of(evaluate(model, examples.inputs), examples.labels),
        accuracy_of(evaluate(qat, examples.inputs), examples.labels),
    )
    return _with_file(measured, qat, examples.inputs) if runs_file else measured


def teach(qat: GraphModule, teacher: nn.Module, inputs: Tensor, num_epochs: int) -> None:
    """Train a prepared network towards the class scores of a float one, at a falling learning rate."""
    distiller = ana_fx.Distiller(teacher, weight=1.0)
    optimizer = torch.optim.Adam(qat.parameters(), lr=_LEARNING_RATE)
    num_steps = num_epochs * (len(inputs) // _BATCH_SIZE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    qat.train()
    for module in qat.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # with the statistics of the whole training of others
    for _ in range(num_epochs):
        for chosen in torch.randperm(len(inputs))[: num_steps // num_epochs * _BATCH_SIZE].split(_BATCH_SIZE):
            loss = distiller(qat(inputs[chosen]), inputs[chosen], torch.zeros(()))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            falling.step()
    qat.eval()


def _with_file(measured: Outcome, qat: GraphModule, inputs: Tensor) -> Outcome:
    """With what the file gives in every kernel set that its target names."""
    integer = ana_fx.convert(qat)
    with TemporaryDirectory() as folder:
        written = ana_fx.export(integer, Path(folder) / "model.tflite")
        report = ana_fx.verify(integer, written.path, inputs)
    names = [title.partition(" ")[0] for title in report.runtimes]
    return Outcome(
        measured.case,
        measured.float_accuracy,
        measured.accuracy,
        dict(zip(names, report.different, strict=True)),
        report.num_outputs // len(names),
        written.bytes,
    )


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """A row for each network, target and form, over all choices of samples."""
    title = "int8 without labels: mean accuracy (least to most)"
    table = Table(title=title, title_justify="left")
    for column in ("network", "target", "by", "float", "int8", "differing outputs", "bytes"):
        table.add_column(column)
    for group in _groups(outcomes):
        first, accuracies = group[0], [each.accuracy for each in group]
        table.add_row(
            first.case.network,
            first.case.target,
            first.case.form,
            f"{first.float_accuracy:.1%}",
            f"{statistics.mean(accuracies):.1%} ({min(accuracies):.1%} to {max(accuracies):.1%})",
            _counts(group),
            f"{first.bytes:,}",
        )
    return table


def _groups(outcomes: Sequence[Outcome]) -> Iterator[list[Outcome]]:
    """The outcomes of all choices of samples together."""
    keys = dict.fromkeys((each.case.network, each.case.target, each.case.form) for each in outcomes)
    for key in keys:
        yield [each for each in outcomes if (each.case.network, each.case.target, each.case.form) == key]


def _counts(group: Sequence[Outcome]) -> str:
    """For each kernel set how many outputs differ, of how many."""
    run = [each for each in group if each.different is not None]
    sums: dict[str, int] = {}
    for each in run:
        for name, count in (each.different or {}).items():
            sums[name] = sums.get(name, 0) + count
    total = sum(each.num_outputs for each in run)
    return ", ".join(f"{name} {count}" for name, count in sums.items()) + f" of {total:,}"


if __name__ == "__main__":
    main()
