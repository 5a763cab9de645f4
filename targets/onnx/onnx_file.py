"""An ONNX file that was read: its borders, what stands in it, and how it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ana_fx.errors import VerifyError
from ana_fx.target_registry import find_target
from ana_fx.targets.file_family import Contents, ExportedFile, FileRun
from ana_fx.targets.files.border import Border
from ana_fx.targets.files.metadata import FLOAT_ISLANDS, TARGET, check_metadata, read_border, stored_levels, texts
from ana_fx.targets.onnx.file_operators import check_operators
from ana_fx.targets.onnx.float_output import float_inputs, float_layer_tolerance
from ana_fx.targets.runtimes.base_runtime import Runtime
from ana_fx.text.plain_text import plain

__all__ = ["OnnxFile", "borders", "metadata_of"]

Array = np.ndarray[Any, Any]

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
_BORDERS = {"QuantizeLinear", "DequantizeLinear"}


class OnnxFile(ExportedFile):
    """An ONNX file.

    Args:
        path: Where it was read.
        model: What stands in it.
    """

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        super().__init__(path)
        self.model = model

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        return metadata_of(self.model)

    @property
    def inputs(self) -> tuple[Border, ...]:
        """Its inputs."""
        return _borders(self.model.graph.input, self.metadata)

    @property
    def outputs(self) -> tuple[Border, ...]:
        """Its outputs."""
        return _borders(self.model.graph.output, self.metadata)

    def contents(self) -> Contents:
        """Its opset, operators, constants and float nodes."""
        graph = self.model.graph
        constants: Counter[str] = Counter()
        for tensor in graph.initializer:
            constants[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += len(tensor.raw_data)
        return Contents(
            max(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")),
            dict(Counter(node.op_type for node in graph.node).most_common()),
            dict(constants.most_common()),
            _float_nodes(graph),
        )

    def run(self, runtime: Runtime, feeds: Mapping[str, Array]) -> FileRun:
        """Run it: integers that it holds in floats are fed as floats, and what a float layer reads is an output too.

        Raises:
            VerifyError: It takes other inputs, has an operator that is none of its target's, or does not run.
        """
        graph = self.model.graph
        self._check_feeds(feeds)
        floats = {value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        fed = {name: array.astype(np.float32) if name in floats else array for name, array in feeds.items()}
        check_operators(self.path, self.model, find_target(self.metadata.get(TARGET, "")))
        num_outputs = len(graph.output)
        inputs, islands = float_inputs(self.model), texts(self.metadata, FLOAT_ISLANDS)
        known = [stored_levels(self.metadata, name) for name in islands]
        names = [*inputs, *islands]
        graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        try:
            found = runtime.outputs(self.model, fed, self.path)
        finally:
            del graph.output[num_outputs:]
        ends = len(found) - len(names), len(found) - len(islands)
        stored = zip(found[ends[1] :], known, strict=True)
        levels = [np.clip(each.astype(np.int64) - zero, low, high) for each, (zero, low, high) in stored]
        return FileRun(found[: ends[0]], found[ends[0] : ends[1]], levels)

    def float_tolerance(self, run: FileRun) -> float:
        """The largest distance that two evaluations of one of its float layers can have."""
        read = zip(float_inputs(self.model), run.float_inputs, strict=True)
        return max((float_layer_tolerance(self.model, name, x) for name, x in read), default=0.0)

    def _check_feeds(self, feeds: Mapping[str, Array]) -> None:
        values = self.model.graph.input
        shapes = [tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]) for value in values]
        given = [array.shape[1:] for array in feeds.values()]
        if shapes != given:
            raise VerifyError(
                f"{self.path} does not take this program's inputs: samples of {given}, needed {shapes}; "
                f"needed a file that export() wrote from this program"
            )


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata of a model; raises what `check_metadata` does."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    check_metadata(metadata)
    return metadata


def borders(model: onnx.ModelProto) -> tuple[tuple[Border, ...], tuple[Border, ...]]:
    """The inputs and the outputs of a model that `export` wrote.

    Raises:
        VerifyError: Its metadata do not describe them.
    """
    metadata = metadata_of(model)
    return _borders(model.graph.input, metadata), _borders(model.graph.output, metadata)


def _borders(values: Iterable[onnx.ValueInfoProto], metadata: Mapping[str, str]) -> tuple[Border, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError as error:
            raise VerifyError(
                f"the metadata do not describe {plain(value.name)!r}: {error}; needed a file that ana_fx.export wrote"
            ) from error
        found.append(read_border(value.name, dtype, tuple(each.dim_value for each in tensor.shape.dim[1:]), metadata))
    return tuple(found)


def _float_nodes(graph: onnx.GraphProto) -> tuple[str, ...]:
    """The nodes that give out floats, but for those that quantise or dequantise."""
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return tuple(
        node.name
        for node in graph.node
        if node.op_type not in _BORDERS and any(types.get(name) in _FLOATS for name in node.output)
    )
