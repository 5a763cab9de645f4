"""`python -m benchmarks.tosa`: TOSA files in Arm's reference model, and in the validator of its MLIR dialect.

The rows are those of docs/targets/tosa.md. Networks with random weights, trained for a step; half of the inputs lie
beyond the calibrated range.
"""

from __future__ import annotations

import argparse
import subprocess
import sysconfig
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn
from torchvision import models

import ana_fx
from benchmarks.networks import Network
from benchmarks.tflite import NETWORKS as TFLITE_NETWORKS
from benchmarks.tflite import NUM_INPUTS, PRECISIONS, differing_outputs, trained_program

__all__ = ["is_valid", "main"]


def _mobilenet_v3() -> nn.Module:
    """Random weights, ten classes."""
    model: nn.Module = models.mobilenet_v3_small(num_classes=10)
    return model


_V3 = Network("MobileNetV3-Small, 8 × 64×64", _mobilenet_v3, (8, 3, 64, 64))
NETWORKS = {**TFLITE_NETWORKS, _V3.name.partition(",")[0]: _V3}


def main() -> None:
    """Run the cases that are wanted and print the table, a row when it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tosa", description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--precisions", nargs="*", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--inputs", type=int, default=NUM_INPUTS, help=f"(default: {NUM_INPUTS:,})")
    parser.add_argument("--keep", type=Path, help="a folder that the files stay in")
    arguments = parser.parse_args()
    print("| network | precision | differing outputs | outputs | inputs | bytes | profile | seconds |")
    print("|---|---|--:|--:|--:|--:|---|--:|")
    for network in arguments.networks:
        for precision in arguments.precisions:
            cells = [network, precision, *_row(NETWORKS[network], precision, arguments.inputs, arguments.keep)]
            print(f"| {' | '.join(cells)} |", flush=True)


def _row(network: Network, precision: str, num_inputs: int, keep: Path | None) -> list[str]:
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        name = f"{network.name.partition(',')[0].replace('/', '-').replace(' ', '-')}-{precision}.tosa"
        path = (keep or Path(folder)) / name
        batch = network.batch()
        program = trained_program(network.model(), batch, precision, "tosa")
        written = ana_fx.export(program, path)
        different, compared = differing_outputs(program, path, batch.shape[1:], num_inputs)
        (count,) = different.values()
        profile = "pro_int, 8k" if is_valid(path) else "none"
    seconds = time.perf_counter() - start
    return [str(count), f"{compared:,}", f"{num_inputs:,}", f"{written.bytes:,}", profile, f"{seconds:.0f}"]


def is_valid(path: Path) -> bool:
    """Whether the validator of TOSA's MLIR dialect takes a file for one of the integer profile, level 8k, version 1.0.

    Its program `tosa-opt` comes with the package `tosa-tools`.
    """
    passes = (
        f"tosa-deserialize{{tosa-flatbuffer-filename={path}}}",
        "tosa-attach-target{profiles=pro_int level=8k specification_version=1.0}",
        "tosa-validate{strict-op-spec-alignment}",
    )
    program = str(Path(sysconfig.get_path("scripts")) / "tosa-opt")
    command = [program, "-", f"--pass-pipeline=builtin.module({','.join(passes)})"]
    return subprocess.run(command, input=b"module {}", capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
