"""Foreign programs that `benchmarks.processors` runs, fetched once with the package managers of their kind.

Each is a folder in the cache, which is there as a whole or not at all. Nothing is installed on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["ForeignPython", "NotRunError", "foreign_python", "needed", "web_packages"]

ONNXRUNTIME = "onnxruntime==1.27.0"  # newer ones for Arm do not start under qemu 7.2
NUMPY = "numpy==2.2.6"
ONNXRUNTIME_WEB = "onnxruntime-web@1.30.0"
_DEBIAN_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}
_WHEELS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


class NotRunError(Exception):
    """A processor's files cannot be run; the message says what to install, or what failed."""


@dataclass(frozen=True)
class ForeignPython:
    """A Python of another processor: its folders of libraries and packages, and the program itself."""

    root: Path
    packages: Path
    program: Path


def needed(program: str, way_out: str) -> str:
    """The path of a program.

    Raises:
        NotRunError: It is not there; `way_out` says what to install.
    """
    path = shutil.which(program)
    if path is None:
        raise NotRunError(way_out)
    return path


def foreign_python(machine: str, cache: Path) -> ForeignPython:
    """Debian's Python for a machine, with NumPy and onnxruntime; fetched when it is asked for first.

    Raises:
        NotRunError: It cannot be fetched.
    """
    name = "-".join(["python", machine, *(package.replace("==", "-") for package in (ONNXRUNTIME, NUMPY))])
    root = _kept(cache / name, lambda folder: _unpack_python(machine, folder))
    return ForeignPython(root, root / "packages", _python(root))


def web_packages(cache: Path) -> Path:
    """The folder of onnxruntime-web; fetched when it is asked for first.

    Raises:
        NotRunError: It cannot be fetched.
    """
    return _kept(cache / ONNXRUNTIME_WEB.replace("@", "-"), _install_web)


def _kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made elsewhere and moved there when it is complete."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            make(made)
            if not folder.exists():  # as somebody else may have made it meanwhile
                made.rename(folder)
    return folder


def _unpack_python(machine: str, folder: Path) -> None:
    with TemporaryDirectory() as state:
        for package in _fetch_debian_packages(_DEBIAN_NAMES[machine], Path(state)):
            _run(["dpkg-deb", "--extract", str(package), str(folder)])  # comes with apt
    version = _python(folder).name.removeprefix("python")
    platforms = [f"--platform={wheel}_{machine}" for wheel in _WHEELS]
    options = ["--only-binary=:all:", "--no-deps", f"--python-version={version}", f"--target={folder / 'packages'}"]
    _run([sys.executable, "-m", "pip", "install", *platforms, *options, ONNXRUNTIME, NUMPY])


def _fetch_debian_packages(architecture: str, state: Path) -> list[Path]:
    """Python and what it needs, for an architecture of which nothing is installed; root is not needed."""
    apt = needed("apt-get", "needs apt-get, of Debian and its kin, to fetch the Python of that processor")
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # the account of apt may not write where these go
        "Debug::NoLocking": "true",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
    }
    options = [f"--option={key}={value}" for key, value in settings.items()]
    _run([apt, *options, "update"])
    _run([apt, *options, "install", "--yes", "--download-only", "python3", "libstdc++6"])
    return sorted((state / "archives").glob("*.deb"))


def _python(root: Path) -> Path:
    """What the link python3 of a Debian tree leads to, python3.11 for example."""
    return (root / "usr" / "bin" / "python3").resolve()


def _install_web(folder: Path) -> None:
    npm = needed("npm", "install Node.js with npm")
    _run([npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", ONNXRUNTIME_WEB])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        reasons = [line for line in lines if line.startswith(("E:", "ERROR:", "npm error", "npm ERR!"))]
        raise NotRunError(f"{Path(command[0]).name} failed: {(reasons or lines)[0]}")
