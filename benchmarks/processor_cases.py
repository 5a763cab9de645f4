"""The files that `benchmarks.processors` runs, with their inputs and the outputs that they must give."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

import ana_fx
from ana_fx.targets.files.border import Border
from ana_fx.targets.onnx.onnx_file import borders
from benchmarks.networks import (
    ATTENTION,
    DS_CNN,
    GROUPS,
    LINEAR,
    MLP,
    MOBILENET_V2_QUARTER,
    PRODUCTS,
    RESNET10,
    VGG8_EIGHTH,
    Network,
)

__all__ = ["ALL", "BATCH", "FEW", "Case", "write_cases"]

PRECISIONS: dict[str, ana_fx.Precision | str] = {
    "ternary": "ternary",
    "int4": "int4",
    "int8": "int8",
    "ternary, 8-bit ends": ana_fx.Precision("ternary", "uint2", first="int8", last="int8"),
}
TARGETS = ("onnxruntime", "integer", "qdq")
BATCH = 16
_FORWARDS = 20  # after which running statistics are 88 % of the batch's
_FLOAT32_HOLDS = 2**24  # every integer up to it


@dataclass(frozen=True)
class Case:
    """One row of the table: a network, the name of a precision, and the target it is prepared for and written to."""

    network: Network
    precision: str
    target: str

    @property
    def name(self) -> str:
        """What the row and the results are found by."""
        return f"{self.title}, {self.precision}, {self.target}"

    @property
    def title(self) -> str:
        """The network without the shape of its batches."""
        return self.network.name.partition(",")[0]


def _cases(networks: Iterable[Network], precisions: Iterable[str]) -> tuple[Case, ...]:
    return tuple(Case(*each) for each in product(networks, precisions, TARGETS))


_QUICK = (DS_CNN, GROUPS, LINEAR, MLP, ATTENTION, PRODUCTS)  # kernels of every kind, in a fraction of the time
ALL = _cases((VGG8_EIGHTH, RESNET10, MOBILENET_V2_QUARTER, *_QUICK), PRECISIONS)
FEW = _cases(_QUICK, PRECISIONS)


def write_cases(cases: Iterable[Case], folder: Path) -> Iterator[Case]:
    """Write the files one by one, and at the end cases.json, which names them; yield each case when it is written."""
    entries = []
    for index, case in enumerate(cases):
        entries.append(_write_case(case, folder, f"{index:03}"))
        yield case
    (folder / "cases.json").write_text(json.dumps(entries))


def _write_case(case: Case, folder: Path, stem: str) -> dict[str, Any]:
    path = folder / f"{stem}.onnx"
    program = _program(case)
    ana_fx.export(program, path, target=case.target)
    inputs, outputs = borders(onnx.load(path))
    stored = [_extreme_levels(border) for border in inputs]
    expected = _outputs(program, inputs, stored)
    assert all(len(np.unique(real, axis=0)) > BATCH // 2 for real in expected), f"{case.name} does not see its input"
    pairs = zip(outputs, expected, strict=True)
    return {
        "name": case.name,
        "model": path.name,
        "inputs": [_write(border, levels, path) for border, levels in zip(inputs, stored, strict=True)],
        "outputs": [_write(border, _stored(border, real), path) for border, real in pairs],
    }


def _program(case: Case) -> GraphModule:
    """The network with random weights, calibrated and converted; its norms know the statistics of its few bits."""
    model, batch = case.network.model(), case.network.batch()
    with torch.no_grad():
        for _ in range(_FORWARDS):
            model(batch)
    precision = PRECISIONS[case.precision]
    qat = ana_fx.prepare(model.eval(), batch, precision=precision, target=case.target, calibration=[batch])
    ana_fx.reestimate_batch_norms(qat, [batch])  # else the deeper ones of two bits give the same for every input
    return ana_fx.convert(qat.eval())


def _extreme_levels(border: Border) -> np.ndarray[Any, Any]:
    """A sample of maxima, one of minima, some of both at random, and random ones."""
    generator = np.random.default_rng(0)
    low, high = border.limits
    levels = generator.integers(low, high, (BATCH, *border.shape), endpoint=True)
    levels[: BATCH // 2] = generator.choice([low, high], (BATCH // 2, *border.shape))
    levels[0], levels[1] = high, low
    return levels.astype(border.dtype)


@torch.no_grad()
def _outputs(program: GraphModule, inputs: Iterable[Border], stored: Iterable[Any]) -> list[np.ndarray[Any, Any]]:
    reals = (torch.from_numpy(border.real(levels)) for border, levels in zip(inputs, stored, strict=True))
    return [output.numpy() for output in pytree.tree_leaves(program(*reals))]


def _stored(border: Border, real: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The integers that the program's real outputs stand for."""
    levels = np.rint(real.astype(np.float64) / border.scale) + border.zero_point
    assert np.abs(levels).max() < _FLOAT32_HOLDS
    return levels.astype(border.dtype)


def _write(border: Border, array: np.ndarray[Any, Any], path: Path) -> dict[str, Any]:
    file = f"{path.stem}.{border.name}.bin"
    array.tofile(path.parent / file)
    return {"name": border.name, "type": str(array.dtype), "shape": array.shape, "file": file}
