"""Runs a .tosa file in Arm's reference model, in a process of its own: the model ends its process on some errors.

It prints, too, what nobody asked for. Standard output has nothing but the outputs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

__all__ = ["main", "outputs_of"]

Array = np.ndarray[Any, Any]

_CHILD = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv[1])
runpy.run_path(sys.argv[2])["main"](sys.argv[3])
"""  # this file alone, for torch takes seconds to import
_LEVEL = "EIGHTK"  # the sizes that every implementation takes
_FILE, _INPUTS, _OUTPUTS = "model.tosa", "inputs.npz", "outputs.npz"


def outputs_of(data: bytes, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of a file, sample after sample, because its batch is 1.

    Raises:
        ValueError: The model does not run it to its end, with what it says.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _FILE).write_bytes(data)
        np.savez(folder / _INPUTS, *feeds.values())
        command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), __file__, str(folder)]
        # a model that fails looks for a debugger; it shall find none
        done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PATH": ""})
        if done.returncode or not (folder / _OUTPUTS).exists():
            said = (done.stdout + done.stderr).decode("utf-8", "replace")
            raise ValueError(_reason(said) or f"its process ended with {done.returncode}")
        with np.load(folder / _OUTPUTS) as found:
            return list(found.values())


def main(folder: str) -> None:
    """Run the file of a folder on the inputs there, and leave the outputs beside them."""
    model = import_module("tosa_reference_model")
    data = (Path(folder) / _FILE).read_bytes()
    with np.load(Path(folder) / _INPUTS) as feeds:
        samples = zip(*feeds.values(), strict=True)
        try:
            rows = [_run(model, data, [array[None] for array in sample]) for sample in samples]
        except ValueError as error:
            sys.exit(str(error))  # behind what the model printed of it
    np.savez(Path(folder) / _OUTPUTS, *(np.concatenate(outputs) for outputs in zip(*rows, strict=True)))


def _run(model: Any, data: bytes, inputs: Sequence[Array]) -> list[Array]:
    outputs, status = model.run(data, list(inputs), tosa_level=_LEVEL)
    if status != model.GraphStatus.TOSA_VALID:
        raise ValueError(f"the reference model says {status.name}")
    return list(outputs)


def _reason(said: str) -> str:
    """The lines of what it says that are no warnings of versions."""
    lines = [line for line in said.splitlines() if line.strip() and "backward compatible" not in line]
    return "; ".join(lines[:8])
