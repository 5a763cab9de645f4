"""ONNX as a family of files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import location, module_of
from ana_fx.target import Target
from ana_fx.targets.file_family import Emission, FileFamily, FileOrder
from ana_fx.targets.files.metadata import NEEDS_VNNI
from ana_fx.targets.onnx.dialect import Dialect, dialect_of
from ana_fx.targets.onnx.foreign_attributes import without_attributes
from ana_fx.targets.onnx.model_file import read_model
from ana_fx.targets.onnx.onnx_file import OnnxFile
from ana_fx.targets.onnx.program_writer import BORDERS, ProgramWriter
from ana_fx.targets.program_needs import needs_of
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.runtimes.runtimes import RUNTIMES

__all__ = ["ONNX_FAMILY", "OnnxFamily"]


class OnnxFamily(FileFamily):
    """Files of ONNX in the dialects of `ana_fx.targets.onnx.dialect`."""

    @property
    def runtimes(self) -> Mapping[str, Runtime]:
        """The packages that run ONNX, by name."""
        return RUNTIMES

    def misfits(self, program: GraphModule, target: Target) -> list[str]:
        """List what the dialect of a target cannot hold, and the nodes that it has no writer for."""
        dialect = dialect_of(target)
        return [*dialect.misfits(program), *_without_writer(program, target, dialect)]

    def emit(self, program: GraphModule, order: FileOrder) -> Emission:
        """Write the program, check the model, and make what stands beside it."""
        dialect = dialect_of(order.target)
        writer = ProgramWriter(program, order.target, dialect, is_float=order.is_float)
        model = writer.write()
        needs_vnni = [node.name for node in writer.reports if node.needs_vnni]
        if needs_vnni:
            model.metadata_props[NEEDS_VNNI] = json.dumps(needs_vnni)
        model.metadata_props.update(order.metadata)
        proto = ir.to_proto(dialect.finish(model))
        onnx.checker.check_model(without_attributes(proto, dialect.foreign_attributes), full_check=True)
        companions = dialect.companions(program, proto, order.name)
        return Emission(proto.SerializeToString(deterministic=True), tuple(writer.reports), companions)

    def read(self, path: Path) -> OnnxFile:
        """Read a model and check it; nothing outside the file is read."""
        return OnnxFile(path, read_model(path))


def _without_writer(program: GraphModule, target: Target, dialect: Dialect) -> list[str]:
    """List the nodes that a target says it has and its dialect has no writer for."""
    found = []
    for node in program.graph.nodes:
        module = module_of(node)
        if module is None or type(module) in BORDERS or dialect.writer(module) is not None:
            continue
        if not _is_refused(module, target):
            found.append(
                f"{location(node)}: target {target.name!r} has no writer for {type(dialect.subject(module)).__name__}, "
                f"needed one in the table of its dialect"
            )
    return found


def _is_refused(module: nn.Module, target: Target) -> bool:
    """Whether the description of a target has no such module, which is another refusal."""
    needs = needs_of(module)
    if needs is None:
        return False
    return needs.operator not in target.operators or (needs.leaves_float and not target.holds_floats)


ONNX_FAMILY = OnnxFamily()
