"""What runs .tflite files: LiteRT with each of its sets of kernels, and TFLite Micro."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from ana_fx.targets.files.unpack_tables import unpack_tables
from ana_fx.targets.runtimes.base_runtime import Arrays, Runtime
from ana_fx.targets.tflite.schema import TFLITE_SCHEMA

__all__ = ["TFLITE_RUNTIMES"]

Array = np.ndarray[Any, Any]

_ARENA = 2**28  # bytes in which TFLite Micro may put all tensors; it takes what it needs


def _litert(data: bytes, feeds: Arrays, resolver: str) -> list[Array]:
    """The outputs of LiteRT's interpreter on one thread."""
    module = import_module("ai_edge_litert.interpreter")
    kind = module.OpResolverType[resolver]
    interpreter = module.Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=kind)
    details = interpreter.get_input_details()
    if any(detail["shape_signature"][0] == 1 for detail in details):
        return _one_by_one(partial(_invoked, interpreter), feeds)
    for detail, array in zip(details, feeds.values(), strict=True):
        interpreter.resize_tensor_input(detail["index"], array.shape, strict=True)
    return _invoked(interpreter, list(feeds.values()))


def _invoked(interpreter: Any, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of LiteRT's interpreter, whose inputs have the sizes of these arrays."""
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def _micro(data: bytes, feeds: Arrays) -> list[Array]:
    """The outputs of TFLite Micro's interpreter, sample after sample."""
    module = import_module("tflite_micro.python.tflite_micro.runtime")
    interpreter = module.Interpreter.from_bytes(data, arena_size=_ARENA)
    num_outputs = len(unpack_tables(TFLITE_SCHEMA, data)["subgraphs"][0]["outputs"])

    def run(arrays: Sequence[Array]) -> list[Array]:
        for index, array in enumerate(arrays):
            interpreter.set_input(array, index)
        interpreter.invoke()
        return [np.array(interpreter.get_output(index)) for index in range(num_outputs)]

    return _one_by_one(run, feeds)


def _one_by_one(run: Callable[[Sequence[Array]], list[Array]], feeds: Arrays) -> list[Array]:
    """The outputs of samples that are run one after the other."""
    samples = zip(*feeds.values(), strict=True)
    rows = [run([np.ascontiguousarray(array[None]) for array in sample]) for sample in samples]
    return [np.concatenate(outputs) for outputs in zip(*rows, strict=True)]


def _runtime(name: str, package: str, run: Callable[[bytes, Arrays], list[Array]]) -> Runtime:
    return Runtime(name, package, run, extra="tflite")


TFLITE_RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        _runtime("litert", "ai_edge_litert", partial(_litert, resolver="BUILTIN")),
        _runtime("litert-builtin", "ai_edge_litert", partial(_litert, resolver="BUILTIN_WITHOUT_DEFAULT_DELEGATES")),
        _runtime("litert-reference", "ai_edge_litert", partial(_litert, resolver="BUILTIN_REF")),
        _runtime("tflite-micro", "tflite_micro", _micro),
    )
}
"""LiteRT as it is by default, which is XNNPACK; without XNNPACK; its reference kernels; and TFLite Micro."""
