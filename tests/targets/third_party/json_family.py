"""What a package of another author holds that writes no ONNX: a family of files, one target, one entry point.

Its files are JSON and hold one linear layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.fx import GraphModule

from ana_fx import Target
from ana_fx.errors import VerifyError
from ana_fx.graph import calls_to, location, module_of
from ana_fx.program.integer_layers import IntegerHead
from ana_fx.program.program_borders import Dequantize, Quantize
from ana_fx.target import FileFormat
from ana_fx.targets.file_family import Contents, Emission, ExportedFile, FileFamily, FileOrder, FileRun
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import IO, TARGET, read_border
from ana_fx.targets.files.regular_file import read_regular_file
from ana_fx.targets.node_report import NodeReport
from ana_fx.targets.runtimes.base_runtime import Runtime

Array = np.ndarray[Any, Any]


def multiply(content: dict[str, Any], feeds: Mapping[str, Array]) -> list[Array]:
    """What runs a file: the layer in NumPy."""
    (x,) = feeds.values()
    return [(x.astype(np.int64) @ np.array(content["weight"]).T + np.array(content["bias"])).astype(np.int32)]


RUNTIMES = {"numpy": Runtime("numpy", "numpy", multiply)}


class JsonFile(ExportedFile):
    """A file that was read."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        super().__init__(path)
        self.content = content

    @property
    def metadata(self) -> dict[str, str]:
        found: dict[str, str] = self.content["metadata"]
        return found

    @property
    def inputs(self) -> tuple[Border, ...]:
        weight = np.array(self.content["weight"])
        return (read_border(self.content["input"], np.dtype(np.int8), weight.shape[1:], self.metadata),)

    @property
    def outputs(self) -> tuple[Border, ...]:
        weight = np.array(self.content["weight"])
        return (read_border("output", np.dtype(np.int32), weight.shape[:1], self.metadata),)

    def contents(self) -> Contents:
        return Contents(1, {"linear": 1}, {"int8": np.array(self.content["weight"]).size}, ())

    def run(self, runtime: Runtime, feeds: Mapping[str, Array]) -> FileRun:
        return FileRun(runtime.run(self.content, feeds), [])

    def float_tolerance(self, run: FileRun) -> float:
        return 0.0


class JsonFamily(FileFamily):
    """Files that hold one linear layer."""

    @property
    def runtimes(self) -> Mapping[str, Runtime]:
        return RUNTIMES

    def misfits(self, program: GraphModule, target: Target) -> list[str]:
        layers = [node for node in program.graph.nodes if node.op == "call_module"]
        others = [node for node in layers if type(module_of(node)) not in (Quantize, IntegerHead, Dequantize)]
        return [f"{location(node)}: it is no last layer, needed one linear layer" for node in others]

    def emit(self, program: GraphModule, order: FileOrder) -> Emission:
        (quantize, head, dequantize) = (calls_to(program, kind)[0] for kind in (Quantize, IntegerHead, Dequantize))
        name, layer = str(quantize.all_input_nodes[0].target), module_of(head)
        assert isinstance(layer, IntegerHead)
        assert layer.weight is not None
        metadata = {TARGET: order.target.name, IO: "integer", **order.metadata}
        for border, node, kind in ((name, quantize, "int8"), ("output", dequantize, "int32")):
            scale = module_of(node).scale
            metadata |= {f"{border}.scale": repr(float(scale)), f"{border}.zero_point": "0", f"{border}.type": kind}
        weight = (layer.weight.int() * layer.factor).tolist()
        content = {"metadata": metadata, "input": name, "weight": weight, "bias": layer.bias.tolist()}
        report = NodeReport(str(head.target), "linear", "int32")
        return Emission(json.dumps(content).encode(), (report,), {"note.txt": b"made by a third party\n"})

    def read(self, path: Path) -> JsonFile:
        try:
            return JsonFile(path, json.loads(read_regular_file(path, 2**20)))
        except (OSError, ValueError) as error:
            raise VerifyError(f"cannot load {path}: {error}") from error


JSON_FAMILY = JsonFamily()

JSON_TARGET = Target(
    "json",
    "one linear layer as JSON",
    emitter="nothing:needed",
    operators=frozenset({"linear"}),
    holds_floats=False,
    borders=("integer",),
    runtimes=("numpy",),
    file_format=FileFormat(".json", f"{__name__}:JSON_FAMILY"),
)
