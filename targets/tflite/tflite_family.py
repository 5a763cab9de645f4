"""TFLite as a family of files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from torch import nn
from torch.fx import GraphModule

from ana_fx.graph import module_of
from ana_fx.target import Target
from ana_fx.targets.file_family import Emission, FileFamily, FileOrder
from ana_fx.targets.program_needs import needs_of
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.targets.tflite.tflite_dialect import TfliteDialect
from ana_fx.targets.tflite.tflite_file import TfliteFile, read_tflite
from ana_fx.targets.tflite.tflite_program import BORDERS, TfliteProgram
from ana_fx.targets.tflite.tflite_runtimes import TFLITE_RUNTIMES
from ana_fx.text.wording import brief

__all__ = ["TFLITE_FAMILY", "TfliteFamily"]


class TfliteFamily(FileFamily):
    """Files of TFLite, written without TensorFlow."""

    @property
    def runtimes(self) -> Mapping[str, Runtime]:
        """LiteRT with each of its sets of kernels, and TFLite Micro."""
        return TFLITE_RUNTIMES

    def misfits(self, program: GraphModule, target: Target) -> list[str]:
        """List the nodes that no operator of TFLite is proven to compute, and those without a writer."""
        dialect = _dialect_of(target)
        found = []
        inner = {each for upsampling in dialect.upsamplings(program).values() for each in upsampling.inner}
        for node in program.graph.nodes:
            module = module_of(node)
            if node in inner or module is None or isinstance(module, BORDERS) or _is_refused(module, target):
                continue
            found += dialect.misfits(node, module, target)
        return found

    def emit(self, program: GraphModule, order: FileOrder) -> Emission:
        """Write the program."""
        writer = TfliteProgram(program, order.target, _dialect_of(order.target))
        builder = writer.write()
        data = builder.pack(type(program).__name__, {**writer.metadata, **order.metadata})
        return Emission(data, tuple(writer.reports))

    def read(self, path: Path) -> TfliteFile:
        """Read a file and check it."""
        return read_tflite(path)


def _dialect_of(target: Target) -> TfliteDialect:
    """Import the table of a target's writers."""
    module, _, name = target.emitter.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, TfliteDialect):
        raise TypeError(
            f"emitter {target.emitter!r} of target {target.name!r} is {brief(found)}, needed a TfliteDialect"
        )
    return found


def _is_refused(module: nn.Module, target: Target) -> bool:
    """Whether the description of a target refuses a module, which is reported elsewhere."""
    needs = needs_of(module)
    return needs is not None and bool(target.refusals(needs))


TFLITE_FAMILY = TfliteFamily()
