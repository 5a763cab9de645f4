"""`python -m benchmarks.targets`: each target, network and precision, run by what reads the target.

The table is docs/target_table.md.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

import ana_fx
from ana_fx import AnaFxError, Target
from ana_fx.target_registry import targets
from ana_fx.targets.files.atomic_files import write_files
from ana_fx.targets.runtimes.runtimes import RUNTIMES
from benchmarks.latency import export_float, runner
from benchmarks.networks import DS_CNN, MOBILENET_V2_QUARTER, RESNET10, VGG8_EIGHTH, Network
from benchmarks.timing import interleaved

__all__ = ["main"]

NETWORKS = (VGG8_EIGHTH, DS_CNN, RESNET10, MOBILENET_V2_QUARTER)
PRECISIONS = ("ternary", "int4", "int8")
REPORT = Path("docs/target_table.md")
MORE_RUNTIMES = {"qdq-int8": ("tract", "openvino")}  # where they are installed
NUM_ROUNDS = 30
BATCH = 4
_SOURCE_LINE = re.compile(r", \S+\.py:\d+: .*?: ")


def main() -> None:
    """Run every case and write the table."""
    cases = [(target, network, precision) for target in targets() for network in NETWORKS for precision in PRECISIONS]
    rows = [_row(*case) for case in track(cases, "targets", console=Console(stderr=True))]
    write_files({REPORT: _report(rows).encode()})
    Console().print(f"{REPORT} is written")


def _row(target: Target, network: Network, precision: str) -> list[str]:
    """One line of the table; why not, if the target does not hold the network."""
    head = [target.name, network.name.partition(",")[0], precision]
    model, batch = network.model(), network.batch()[:BATCH]
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"model{target.file_format.suffix}"
        try:
            written, checked = _ship(target, model, batch, precision, path)
        except AnaFxError as error:
            return [*head, "", "", "", "", _first_reason(error)]
        export_float(model, batch, Path(folder) / "float.onnx")
        float_bytes = (Path(folder) / "float.onnx").stat().st_size
        speed = ""
        if "onnxruntime" in target.runtimes:
            files = {"float": Path(folder) / "float.onnx", "ours": path}
            feed = {"float": batch[:1], "ours": batch[:1]}
            seconds = interleaved({name: runner(file, feed[name]) for name, file in files.items()}, NUM_ROUNDS)
            speed = f"{seconds['float'] / seconds['ours']:.2f}"
    runtimes = ", ".join(f"{name}: {count}" for name, count in zip(checked.runtimes, checked.different, strict=True))
    size = f"{written.bytes:,} ({float_bytes / written.bytes:.1f})"
    return [*head, runtimes, f"{checked.num_outputs:,}", size, speed, ""]


def _ship(target: Target, model: nn.Module, batch: torch.Tensor, precision: str, path: Path) -> tuple[Any, Any]:
    """Prepare for the target, train a step, convert, export with float borders where it has them, verify."""
    qat = ana_fx.prepare(model, batch, precision=precision, target=target.name)
    qat.train()(batch)
    program = ana_fx.convert(qat.eval())
    io = "float" if "float" in target.borders else "integer"
    written = ana_fx.export(program, path, target=target.name, io=io)
    more = [name for name in MORE_RUNTIMES.get(target.name, ()) if find_spec(RUNTIMES[name].package)]
    return written, ana_fx.verify(program, path, torch.rand_like(batch), runtimes=[*target.runtimes, *more])


def _first_reason(error: AnaFxError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    reason = lines[1] if len(lines) > 1 else lines[0]
    return _SOURCE_LINE.sub(": ", reason).replace("|", "/")


def _report(rows: list[list[str]]) -> str:
    columns = ["target", "network", "precision", "differing outputs", "outputs", "bytes (float file over it)"]
    columns += ["speed over float", "refused because"]
    lines = [
        "# Targets, networks, precisions",
        "",
        "Written by `python -m benchmarks.targets`. Networks with random weights, prepared for the target, trained",
        "for a step, converted, exported and run by what reads the target; `differing outputs` counts those that are",
        "not equal to the trained model's. Speed is that of onnxruntime on one thread and one sample, over the float",
        "file.",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


if __name__ == "__main__":
    main()
