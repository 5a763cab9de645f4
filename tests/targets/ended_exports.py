"""Exports that are ended by a signal at a random moment, and what they leave: `python -m tests.targets.ended_exports`.

Each is a fork of this process, with everything imported, that replaces old files by new ones. In half of the tries
the moment is anywhere in the export, in the other half while files are written.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import select
import signal
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.hub
from torch import nn
from torch.fx import GraphModule

import ana_fx
from ana_fx.targets import export as export_module

__all__ = ["count_outcomes", "program"]

_Folder = dict[str, bytes]
_FAILED, _INTERRUPTED = 1, 130
_PATIENCE = 60.0  # seconds


def program(seed: int, target: str) -> GraphModule:
    """A small network, converted."""
    torch.manual_seed(seed)
    x = torch.rand(4, 8)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 5))
    return ana_fx.convert(ana_fx.prepare(model, x, calibration=[x], target=target))


def count_outcomes(target: str, number: signal.Signals, num_ended: int, seed: int = 0) -> Counter[str]:
    """How often the files were "old", "new" or "mixed" afterwards, and how often something was "beside" them.

    Tries go on until that many exports were "ended" by the signal; others were done before it came. "tidy" is 1 if
    nothing but new files is there after a last export that nobody ends.
    """
    chance, outcomes = random.Random(seed), Counter[str]()
    programs = [program(0, target), program(1, target)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        old, new = (_exported(each, folder) for each in programs)
        whole, writing = (min(each) for each in zip(*(_durations(programs[1], folder) for _ in range(9)), strict=True))
        for index in itertools.count():
            if outcomes["ended"] == num_ended:
                break
            for file, data in old.items():
                (folder / file).write_bytes(data)
            is_writing = index % 2 == 1
            delay = chance.uniform(0, writing if is_writing else whole)
            outcomes["ended"] += _end(programs[1], folder, number, delay, is_writing) != 0
            outcomes["tries"] += 1
            found = _read(folder)
            outcomes["beside"] += not found.keys() <= old.keys() | new.keys()
            ours = {file: found[file] for file in found if file in old or file in new}
            outcomes["old" if ours == old else "new" if ours == new else "mixed"] += 1
        ana_fx.export(programs[1], folder / "network.onnx")
        outcomes["tidy"] += _read(folder) == new
    return outcomes


def _exported(each: GraphModule, folder: Path) -> _Folder:
    ana_fx.export(each, folder / "network.onnx")
    return _read(folder)


def _read(folder: Path) -> _Folder:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def _durations(each: GraphModule, folder: Path) -> tuple[float, float]:
    """Seconds of an export in a fork, and of writing in it."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = _fork(each, folder, writer)
    os.read(reader, 1)
    middle = time.perf_counter()
    os.waitpid(child, 0)
    os.close(reader)
    return time.perf_counter() - start, time.perf_counter() - middle


def _end(each: GraphModule, folder: Path, number: signal.Signals, delay: float, is_writing: bool) -> int:
    reader, writer = os.pipe()
    child = _fork(each, folder, writer)
    if is_writing:
        select.select([reader], [], [], _PATIENCE)
    time.sleep(delay)
    os.kill(child, number)
    if not select.select([reader], [], [], _PATIENCE)[0]:  # should a fork have inherited a lock that nobody opens
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        return 0
    _, status = os.waitpid(child, 0)
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _FAILED, _INTERRUPTED, -number), code
    return code


def _fork(each: GraphModule, folder: Path, writer: int) -> int:
    """A child that exports, and says so when it begins to write."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child can say what happened
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.close(writer)
        return child
    code, write_files = _FAILED, export_module.write_files

    def announce(files: dict[Path, bytes]) -> None:
        os.write(writer, b".")
        write_files(files)

    export_module.write_files = announce
    try:
        if hasattr(
            torch.hub.tqdm, "set_lock"
        ):  # torch.fx takes it; a child that is killed would keep it from all others
            torch.hub.tqdm.set_lock(threading.RLock())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        ana_fx.export(each, folder / "network.onnx")
        code = 0
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BaseException:  # what native code makes of it
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Print the counts for one file and for a folder of files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ended", type=int, nargs="?", default=1000)
    parser.add_argument("--target", nargs="+", default=["onnxruntime", "deeploy"])
    arguments = parser.parse_args()
    for target in arguments.target:
        for number in (signal.SIGKILL, signal.SIGINT):
            outcomes = count_outcomes(target, number, arguments.ended)
            print(target, number.name, dict(sorted(outcomes.items())), flush=True)  # noqa: T201  # a program prints


if __name__ == "__main__":
    main()
