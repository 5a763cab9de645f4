"""Where `benchmarks.processors` runs the files: a column of its table each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processor_packages import NotRunError, foreign_python, needed, web_packages

__all__ = ["COLUMNS", "Column", "Outcome", "run_column"]

SECONDS = 3600  # after which a column is given up
_WORKER = Path(__file__).with_name("compare_files.py")
_WEB_WORKER = Path(__file__).with_name("compare_files.mjs")
_INSTALL_QEMU = "install qemu-user"
_FEATURES = {  # what a kernel is chosen by, best first, as Linux names it
    "avx512_vnni": "x86 AVX-512 with VNNI",
    "avx_vnni": "x86 AVX2 with VNNI",
    "avx512bw": "x86 AVX-512 without VNNI: adds two products in 16 bits",
    "avx2": "x86 AVX2 without VNNI: adds two products in 16 bits",
    "sse4_1": "x86 SSE4.1",
    "asimddp": "Arm NEON with dot product",
    "asimd": "Arm NEON",
}


@dataclass(frozen=True)
class Launch:
    """A command that the folder of cases is appended to, and what is added to its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A processor.

    Args:
        name: Its name in the table and on the command line.
        how: How the files are run.
        kernels: What onnxruntime multiplies with there.
        launch: From the cache to the command; NotRunError says what to install.
    """

    name: str
    how: str
    kernels: str
    launch: Callable[[Path], Launch]


@dataclass(frozen=True)
class Outcome:
    """What a column gave.

    Args:
        column: The column.
        runtime: What ran there, with its version; empty if nothing did.
        cases: For each case by name "different" and "compared", or "error".
        reason: Why nothing ran, or empty.
    """

    column: Column
    runtime: str = ""
    cases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reason: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether every file ran and no output differs."""
        return not self.reason and all(case.get("different") == 0 for case in self.cases.values())


def run_column(column: Column, folder: Path, cache: Path) -> Outcome:
    """Run all cases of a folder there; whatever stops a column is its outcome, so that the others go on."""
    try:
        launch = column.launch(cache)
        found = _results(launch, folder)
    except NotRunError as reason:
        return Outcome(column, reason=str(reason))
    return Outcome(column, found["runtime"], found["cases"])


def _results(launch: Launch, folder: Path) -> dict[str, Any]:
    command = [*launch.command, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **launch.environment}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"took more than {SECONDS} s") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "warning" not in line.lower()]
        raise NotRunError((said or [f"exit status {done.returncode}"])[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _native(_: Path) -> Launch:
    return Launch((sys.executable, str(_WORKER)))


def _emulated(machine: str, cpu: str, cache: Path) -> Launch:
    """On x86 this very Python runs under the x86 emulator; any other processor has a Python of its own."""
    qemu = needed(f"qemu-{machine}", _INSTALL_QEMU)
    environment = {"OPENBLAS_CORETYPE": "Nehalem"} if machine == "x86_64" else {}  # NumPy's would ask the real one
    if machine == platform.machine() == "x86_64":
        return Launch((qemu, "-cpu", cpu, sys.executable, str(_WORKER)), environment)
    python = foreign_python(machine, cache)
    command = (qemu, "-cpu", cpu, "-L", str(python.root), str(python.program), str(_WORKER))
    return Launch(command, environment | {"PYTHONPATH": str(python.packages), "PYTHONNOUSERSITE": "1"})


def _node(cache: Path) -> Launch:
    node = needed("node", "install Node.js with npm")
    return Launch((node, str(_WEB_WORKER), str(web_packages(cache))))


def _own_kernels() -> str:
    """By the features that Linux lists; elsewhere by the machine's name."""
    listing = Path("/proc/cpuinfo")
    features = set(listing.read_text().split()) if listing.exists() else set()
    return next((text for name, text in _FEATURES.items() if name in features), platform.machine())


def _emulator(name: str, machine: str, cpu: str, kernels: str) -> Column:
    return Column(name, f"`qemu-{machine} -cpu {cpu}`", kernels, partial(_emulated, machine, cpu))


COLUMNS = (
    Column("native", "the machine itself", _own_kernels(), _native),
    _emulator("nehalem", "x86_64", "Nehalem", "x86 SSE4.1"),
    _emulator("haswell", "x86_64", "Haswell", "x86 AVX2 without VNNI: adds two products in 16 bits"),
    _emulator("cortex-a72", "aarch64", "cortex-a72", "Arm NEON without dot product"),
    _emulator("neoverse-n1", "aarch64", "neoverse-n1", "Arm NEON with dot product"),
    Column("wasm", "onnxruntime-web in Node", "WebAssembly SIMD", _node),
)
