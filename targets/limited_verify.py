"""`verify_files` in a process of its own, with limits: for files of strangers.

An operator that never ends, or takes all memory, cannot be stopped from inside; a process can.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ana_fx.errors import AnaFxError, VerifyError
from ana_fx.targets.compare import verify_files
from ana_fx.targets.file_family import family_at
from ana_fx.targets.files.regular_file import reason_of

if sys.platform != "win32":
    import resource

__all__ = ["verify_in_limits"]

_CHILD = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from ana_fx.targets.limited_verify import main; main()"
)
_GIGABYTE = 2**30


def verify_in_limits(
    path: Path,
    against: Path,
    inputs: Sequence[Path],
    *,
    runtimes: Sequence[str] = (),
    trusts_code: bool,
    seconds: float,
    gigabytes: float,
) -> str:
    """The report of `verify_files`, as text.

    Args:
        path: The file, as for `verify_files`.
        against: What it is compared with, as for `verify_files`.
        inputs: Files of inputs, as for `verify_files`.
        runtimes: What runs the file, as for `verify_files`.
        trusts_code: Whether a program of torch is loaded, as for `verify_files`.
        seconds: How long it may take.
        gigabytes: How much memory it may take beyond what its code needs. Windows and macOS have no such limit.

    Raises:
        VerifyError: A file cannot be loaded or run, an output differs, or a limit was reached.
    """
    order = {
        "path": str(path),
        "against": str(against),
        "inputs": [str(each) for each in inputs],
        "runtimes": list(runtimes),
        "trusts_code": trusts_code,
        "gigabytes": gigabytes,
    }
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), json.dumps(order)]
    try:
        finished = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise VerifyError(f"{path}: stopped after {seconds:g} seconds; give --seconds if it needs more") from None
    answer = _answer_in(finished)
    if answer is None:
        raise VerifyError(
            f"{path}: its process ended with {_ending(finished.returncode)}; needed a file that its runtime survives "
            f"with {gigabytes:g} GiB of memory; give --gigabytes if it needs more"
        )
    if "error" in answer:
        raise VerifyError(answer["error"])
    return answer["report"]


def _answer_in(finished: subprocess.CompletedProcess[bytes]) -> dict[str, str] | None:
    """What a process said in its last line; None if it died before."""
    try:
        answer: dict[str, str] = json.loads(finished.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return answer


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def main() -> None:
    """What the process does: one line of JSON."""
    order = json.loads(sys.argv[2])
    _write(_answer(order))


def _answer(order: dict[str, Any]) -> dict[str, str]:
    for path in (order["path"], order["against"]):
        family_at(Path(path))  # imports what reads and runs it, before memory is counted
    _limit_memory(order["gigabytes"])
    try:
        report = verify_files(
            Path(order["path"]),
            Path(order["against"]),
            [Path(each) for each in order["inputs"]],
            runtimes=order["runtimes"],
            trusts_code=order["trusts_code"],
        )
    except (AnaFxError, ValueError, OSError) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"{order['path']}: needed more than {order['gigabytes']:g} GiB of memory; give --gigabytes"}
    except Exception as error:  # what no check foresaw is no reason for a traceback
        return {"error": f"{order['path']}: {type(error).__name__}: {reason_of(error)}"}
    return {"report": str(report)}


def _limit_memory(gigabytes: float) -> None:
    """From now on only so much more; what is mapped already is the code."""
    if sys.platform == "win32":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except FileNotFoundError:  # macOS, which has no such limit either
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + int(gigabytes * _GIGABYTE)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _write(answer: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
