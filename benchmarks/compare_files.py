"""`python benchmarks/compare_files.py FOLDER`: run the ONNX files of a folder, count the outputs that differ.

It runs under an emulated Python too, so it imports NumPy and onnxruntime alone, and one process runs every file.
FOLDER holds cases.json, which `benchmarks.processor_zoo` writes: for each case the name of its ONNX file and its
tensors (name, type, shape, file of raw bytes) in and out. The counts are printed as JSON; compare_files.mjs does the
same with onnxruntime-web.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["compare", "main"]


def main() -> None:
    """Compare the folder that the command line names."""
    print(json.dumps(compare(Path(sys.argv[1]))))


def compare(folder: Path) -> dict[str, Any]:
    """The runtime's version, and for each case its counts, or why it could not be run."""
    cases = json.loads((folder / "cases.json").read_text())
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "cases": {case["name"]: _compare_case(folder, case) for case in cases},
    }


def _compare_case(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    feed = {tensor["name"]: _read(folder, tensor) for tensor in case["inputs"]}
    try:
        session = onnxruntime.InferenceSession(folder / case["model"], options, providers=["CPUExecutionProvider"])
        results = session.run([tensor["name"] for tensor in case["outputs"]], feed)
    except Exception as error:  # a file that a version cannot read is a cell of the table
        return {"error": str(error).strip().splitlines()[0]}
    expected = [_read(folder, tensor) for tensor in case["outputs"]]
    return {
        "different": sum(_num_different(got, want) for got, want in zip(results, expected, strict=True)),
        "compared": sum(want.size for want in expected),
    }


def _num_different(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> int:
    """Every output, where type or shape are not the expected ones."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return want.size
    return int(np.count_nonzero(got != want))


def _read(folder: Path, tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    flat = np.fromfile(folder / tensor["file"], dtype=tensor["type"])
    array: np.ndarray[Any, Any] = flat.reshape(tensor["shape"])
    return array


if __name__ == "__main__":
    main()
