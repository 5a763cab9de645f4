"""An ONNX file in onnxruntime, as an application would run it: nothing here knows of ana_fx."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

__all__ = ["OnnxFile", "latencies"]


class OnnxFile:
    """A classifier in onnxruntime on the CPU.

    A file with integer borders says in its metadata what one integer means; this border does the
    rest, in float32 as QuantizeLinear and DequantizeLinear would.

    Args:
        path: The file.
        num_threads: Threads of an operator.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.path = path
        self.bytes = path.stat().st_size

    def feed(self, images: Tensor) -> dict[str, Any]:
        """What the file takes for float images."""
        x = images.numpy()
        if self._input.type != "tensor(float)":
            kind = np.uint8 if self._input.type == "tensor(uint8)" else np.int8
            limits = np.iinfo(kind)
            levels = np.rint(x / self._scale(self._input.name)) + self._zero_point(self._input.name)
            x = levels.clip(limits.min, limits.max).astype(kind)
        return {self._input.name: x}

    def run(self, feed: dict[str, Any]) -> Any:
        """The output as the file gives it."""
        return self._session.run(None, feed)[0]

    def logits(self, images: Tensor) -> Tensor:
        """Float logits of float images."""
        y = self.run(self.feed(images))
        if self._output.type != "tensor(float)":
            levels = y.astype(np.int64) - self._zero_point(self._output.name)
            y = levels.astype(np.float32) * self._scale(self._output.name)
        return torch.from_numpy(y)

    def _scale(self, name: str) -> np.float32:
        scale: np.float32 = np.float32(self._metadata[f"{name}.scale"])
        return scale

    def _zero_point(self, name: str) -> int:
        return int(self._metadata[f"{name}.zero_point"])


def latencies(files: Sequence[OnnxFile], image: Tensor, num_rounds: int = 200, num_runs: int = 10) -> list[float]:
    """Median seconds of one run of each file.

    The files take turns, so that whatever else the machine does falls on all of them.

    Args:
        files: The files to compare.
        image: What each is run on, with its batch axis.
        num_rounds: How many turns each file has.
        num_runs: How often it runs in a turn.
    """
    seconds: list[list[float]] = [[] for _ in files]
    feeds = [file.feed(image) for file in files]
    for _ in range(num_rounds):
        for file, feed, seen in zip(files, feeds, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(num_runs):
                file.run(feed)
            seen.append((time.perf_counter() - start) / num_runs)
    return [median(seen) for seen in seconds]
