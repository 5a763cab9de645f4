"""Few bits without training: trained networks of others, calibrated on images without labels, and their files checked.

    python -m examples.post_training --data FOLDER

For each network, width and choice of calibration samples: the accuracy of `prepare` with calibration alone, that after
`reconstruct`, and how many outputs of the exported file differ from the model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch.fx import GraphModule

import ana_fx
from examples.comparison import accuracy_of, evaluate, in_batches
from examples.onnx_file import OnnxFile
from examples.trained_networks import TRAINED, Examples

__all__ = ["Case", "Outcome", "main", "run_case", "table_of"]

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Case:
    """A network of `TRAINED`, a preset of precision, and the seed that chooses the calibration samples."""

    network: str
    precision: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a case gave.

    Args:
        case: The case.
        float_accuracy: Of the float network.
        calibrated: Accuracy with calibration alone.
        reconstructed: Accuracy after `reconstruct`.
        num_different: How many outputs of the exported file, run in onnxruntime, differ from the model's.
        seconds: How long `reconstruct` took.
    """

    case: Case
    float_accuracy: float
    calibrated: float
    reconstructed: float
    num_different: int
    seconds: float


def main() -> None:
    """Run all cases that are wanted, show and store what they gave."""
    parser = argparse.ArgumentParser(prog="python -m examples.post_training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data and the trained networks")
    parser.add_argument("--networks", nargs="*", default=["ResNet-20", "ResNet8", "DS-CNN"], choices=TRAINED)
    parser.add_argument("--precisions", nargs="*", default=["int8", "int4"])
    parser.add_argument("--samples", type=int, default=512, help="for calibration; fewer where there are fewer")
    parser.add_argument("--choices", type=int, default=3, help="of calibration samples")
    parser.add_argument("--equalize", action="store_true", help="the float network first")
    parser.add_argument("--json", type=Path, help="where to store the outcomes")
    arguments = parser.parse_args()
    cases = [
        Case(network, precision, seed)
        for network in arguments.networks
        for precision in arguments.precisions
        for seed in range(arguments.choices)
    ]
    outcomes = []
    for outcome in _run_all(cases, arguments):
        outcomes.append(outcome)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(each) for each in outcomes], indent=1), encoding="utf-8")
    Console().print(table_of(outcomes))


def _run_all(cases: Sequence[Case], settings: argparse.Namespace) -> Iterator[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("quantising", total=len(cases))
        for case in cases:
            progress.update(task, description=f"{case.network}, {case.precision}, choice {case.seed}")
            yield run_case(case, settings.data, settings.samples, equalizes=settings.equalize)
            progress.advance(task)


def run_case(case: Case, data: Path, num_samples: int, *, equalizes: bool = False) -> Outcome:
    """Quantise a network without labels, equalised or as it is, and measure it on the test samples."""
    network = TRAINED[case.network]
    model, examples = network.load(data), network.examples(data)
    chosen = torch.randperm(len(examples.calibration), generator=torch.Generator().manual_seed(case.seed))
    samples = examples.calibration[chosen[:num_samples]]
    batches = samples.split(_BATCH_SIZE)
    if equalizes:
        model = ana_fx.equalize(model, batches)
    qat = ana_fx.prepare(model, samples[:2], precision=network.precision(case.precision), calibration=batches)
    calibrated = accuracy_of(evaluate(qat, examples.inputs), examples.labels)
    start = time.perf_counter()
    ana_fx.reconstruct(qat, batches)
    return Outcome(
        case,
        accuracy_of(evaluate(model, examples.inputs), examples.labels),
        calibrated,
        accuracy_of(evaluate(qat, examples.inputs), examples.labels),
        _num_different(qat, examples),
        time.perf_counter() - start,
    )


def _num_different(qat: GraphModule, examples: Examples) -> int:
    """How many outputs of the exported file are not those of the model, bit for bit."""
    with TemporaryDirectory() as folder:
        report = ana_fx.export(ana_fx.convert(qat), Path(folder) / "model.onnx", io="float")
        found = in_batches(OnnxFile(report.path).logits, examples.inputs)
    return int((found != evaluate(qat, examples.inputs)).sum())


def table_of(outcomes: Iterable[Outcome]) -> Table:
    """A row for each network and width, over all choices of samples."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.case.network, outcome.case.precision), []).append(outcome)
    table = Table(title="Accuracy without training and without labels: mean (least to most)", title_justify="left")
    for column in ("network", "precision", "float", "calibration alone", "reconstruct", "differing outputs", "seconds"):
        table.add_column(column)
    for (network, precision), group in groups.items():
        table.add_row(
            network,
            precision,
            f"{group[0].float_accuracy:.1%}",
            _spread([each.calibrated for each in group]),
            _spread([each.reconstructed for each in group]),
            str(sum(each.num_different for each in group)),
            f"{statistics.mean(each.seconds for each in group):.0f}",
        )
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


if __name__ == "__main__":
    main()
